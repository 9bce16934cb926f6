"""Several real processes on one embedded file, killed and frozen: what one held, another gets, once."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.testing.conformance import eventually

pytestmark = pytest.mark.crash

WORKER = Path(__file__).with_name("embedded_worker.py")


class Worker:
    """A worker process and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.got: list[list[Any]] = []
        self._other: list[dict[str, Any]] = []

    async def hear(self, name: str, seconds: float = 15.0) -> Any:
        """Return the next event called `name`; deliveries are collected on the way."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while True:
                line = await self.process.stdout.readline()
                assert line, f"the worker ended with {await self.process.wait()}"
                event = json.loads(line)
                if "got" in event:
                    self.got.append(event["got"])
                if name in event:
                    return event[name]

    async def hear_deliveries(self, count: int, seconds: float = 15.0) -> list[list[Any]]:
        while len(self.got) < count:
            await self.hear("got", seconds)
        return self.got

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def start(path: Path) -> AsyncIterator[Start]:
    """Start a worker on the file; all are killed at the end."""
    started: list[Worker] = []

    async def start_one(
        *, claim_seconds: float = limits.CLAIM_SECONDS, prefetch: int = 0, failpoints: str = ""
    ) -> Worker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(WORKER), str(path), str(claim_seconds), str(prefetch), failpoints),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(Worker(process))
        await started[-1].hear("ready")
        return started[-1]

    yield start_one
    for worker in started:
        if worker.process.returncode is None:
            worker.process.send_signal(signal.SIGCONT)
            await worker.kill()
        assert worker.process.stdin is not None
        worker.process.stdin.close()


async def publish(worker: Worker, *ids: str) -> None:
    for id in ids:
        worker.tell(f"publish {id}")
        assert "confirmed" == await worker.hear("outcome")


def ids_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path, timeout=5)) as database:
        return [id for (id,) in database.execute("select message_id from message order by id")]


async def test_what_a_killed_consumer_held_reaches_another_within_seconds(start: Start) -> None:
    """Its lock is free, so nobody waits 30 s for its lease; the deliveries are counted."""
    publisher = await start()
    victim = await start(prefetch=10)
    await publish(publisher, "m1", "m2", "m3")
    await victim.hear_deliveries(3)

    await victim.kill()
    heir = await start(prefetch=10)

    assert [["m1", 1], ["m2", 1], ["m3", 1]] == await heir.hear_deliveries(3, seconds=3.0)


async def test_a_frozen_consumers_late_acks_change_nothing(start: Start, path: Path) -> None:
    """Past its lease its messages are another's; woken up it is told so, and cannot remove them."""
    publisher = await start(claim_seconds=0.6)
    frozen = await start(claim_seconds=0.6, prefetch=10)
    await publish(publisher, "m1", "m2")
    await frozen.hear_deliveries(2)
    await _freeze_between_commits(frozen, path)
    heir = await start(claim_seconds=0.6, prefetch=10)
    await heir.hear_deliveries(2)

    frozen.tell("ack")
    frozen.process.send_signal(signal.SIGCONT)
    late = await frozen.hear("acked")
    await frozen.kill()
    await heir.kill()

    last = await start(claim_seconds=0.6, prefetch=10)
    assert [False, False] == late
    assert [["m1", 1], ["m2", 1]] == heir.got
    assert [["m1", 2], ["m2", 2]] == await last.hear_deliveries(2)


async def test_a_working_consumer_keeps_its_claims_past_their_first_lease(start: Start, path: Path) -> None:
    """A handler may take longer than a lease: the process renews for it."""
    claim_seconds = 1.5  # a machine at its limits may well leave a process alone for a third of a second
    publisher = await start(claim_seconds=claim_seconds)
    worker = await start(claim_seconds=claim_seconds, prefetch=10)
    await publish(publisher, "m1")
    await worker.hear_deliveries(1)
    other = await start(claim_seconds=claim_seconds, prefetch=10)
    await asyncio.sleep(claim_seconds)

    worker.tell("ack")
    assert [True] == await worker.hear("acked")
    await eventually(lambda: ids_in(path) == [])  # an ack is on its way to the file; killed before, it never was
    await publish(publisher, "m2")
    await worker.kill()  # so that both messages, if both are left, are the other's
    assert ["m2"] == [id for id, _ in await other.hear_deliveries(1)]


@pytest.mark.parametrize(
    ("failpoint", "expected"),
    [("embedded.before_enqueue", ["m2"]), ("embedded.after_enqueue", ["m1", "m2"])],
)
async def test_a_publisher_killed_around_its_commit_leaves_all_or_nothing(
    start: Start, failpoint: str, expected: list[str]
) -> None:
    """Before it the message is only in the outbox, after it in its queue; the publisher knew of neither."""
    victim = await start(failpoints=f"{failpoint}=kill")
    victim.tell("publish m1")
    assert -signal.SIGKILL == await victim.process.wait()

    await publish(await start(), "m2")

    consumer = await start(prefetch=10)
    assert expected == [id for id, _ in await consumer.hear_deliveries(len(expected))]


async def test_a_consumer_killed_before_it_saw_its_claim_loses_nothing(start: Start) -> None:
    """The claim is durable, its owner is dead."""
    await publish(await start(), "m1")

    async def consume_and_die() -> None:
        victim = await start(prefetch=10, failpoints="embedded.after_claim=kill")  # perhaps before it is ready
        await victim.hear("got")

    with pytest.raises(AssertionError, match="ended with -9"):
        await consume_and_die()

    heir = await start(prefetch=10)
    assert [["m1", 1]] == await heir.hear_deliveries(1, seconds=3.0)


async def test_a_consumer_killed_after_its_ack_was_written_leaves_nothing_behind(start: Start) -> None:
    """The delivery is gone for good: no redelivery after the crash."""
    publisher = await start()
    victim = await start(prefetch=10, failpoints="embedded.after_ack=kill")
    await publish(publisher, "m1")
    await victim.hear_deliveries(1)

    victim.tell("ack")
    assert -signal.SIGKILL == await victim.process.wait()

    heir = await start(prefetch=10)
    await publish(publisher, "m2")
    assert [["m2", 0]] == await heir.hear_deliveries(1)


async def _freeze_between_commits(worker: Worker, path: Path) -> None:
    """Stop a process at a moment when it does not hold the file's write lock, which would stop everybody."""

    def is_frozen_outside() -> bool:
        worker.process.send_signal(signal.SIGSTOP)
        descriptor = os.open(path.with_name(f"{path.name}.writer"), os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            worker.process.send_signal(signal.SIGCONT)
            return False
        finally:
            os.close(descriptor)
        return True

    await eventually(is_frozen_outside)
