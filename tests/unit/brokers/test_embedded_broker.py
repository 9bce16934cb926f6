"""The embedded broker beyond the port's contract: its limit, its file going away, and its own end."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.brokers.embedded import EmbeddedBroker
from spoolproof.clock import SystemClock
from spoolproof.errors import BrokerUnavailable
from spoolproof.ids import Ids
from spoolproof.ports.broker import NACKED, Confirmed, ConnectionState, Nacked, Unknown
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Outcomes, consume, make_topology, publish, start
from spoolproof.testing.conformance._messages import make_outgoing

Make = Callable[..., EmbeddedBroker]


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Make brokers on a file, by default one and the same; all are stopped at the end."""
    made: list[EmbeddedBroker] = []

    def make_one(path: Path = tmp_path / "broker.db", **options: Any) -> EmbeddedBroker:
        clock = options.pop("clock", None) or SystemClock()
        made.append(EmbeddedBroker(path, clock=clock, ids=Ids(clock), spawn=_spawn, **options))
        return made[-1]

    yield make_one
    for broker in made:
        await broker.stop()


async def test_a_full_queue_declines_until_there_is_room(make: Make) -> None:
    """Rule 6: at the limit the outbox keeps the rows; nothing is dropped and nothing is stuck."""
    broker = make(queue_rows_max=2)
    topology = make_topology()
    await broker.start(topology)
    assert await broker.wait_for_room(5.0)

    assert [Confirmed(), Confirmed(), NACKED] == await publish(broker, *(make_outgoing() for _ in range(3)))

    arrivals, _ = await consume(broker, topology.queues[0].name)
    (first, _) = await arrivals.reach(2)
    first.ack()
    await eventually(lambda: _is_taken(broker))


async def _is_taken(broker: EmbeddedBroker) -> bool:
    return [Confirmed()] == await publish(broker, make_outgoing())


async def test_a_file_that_cannot_be_opened_is_an_outage_that_ends(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The start does not wait for it, submit says why, nobody has to restart anything, and the log has both ends."""
    obstacle = tmp_path / "data"
    obstacle.write_text("a file where a directory should be")
    broker = make(obstacle / "broker.db")

    await broker.start(make_topology())
    await eventually(lambda: broker.status().state is ConnectionState.DISCONNECTED and broker.status().issues != ())
    with pytest.raises(BrokerUnavailable, match=r"broker\.db.*not open"):
        broker.submit(make_outgoing(), None, Outcomes())
    await eventually(lambda: broker.status().connections[0].attempt > 2, 10.0)
    obstacle.unlink()

    assert await broker.wait_for_room(10.0)
    assert ["broker.away", "broker.back"] == [text.split()[0] for text in caplog.messages]
    assert [Confirmed()] == await publish(broker, make_outgoing())
    assert () == broker.status().issues


async def test_a_full_disk_declines_and_costs_nothing_that_was_confirmed(make: Make, tmp_path: Path) -> None:
    """A real file system of 1 MiB: what was confirmed is there when space is back, and so is the broker."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 300_000)
        broker = make(disk / "broker.db")
        topology = make_topology()
        await broker.start(topology)
        assert await broker.wait_for_room(5.0)
        confirmed: list[str] = []
        answers: list[object] = []
        while not answers or isinstance(answers[-1], Confirmed):
            outgoing = make_outgoing(body=b"x" * 20_000)
            answers += await publish(broker, outgoing)
            if isinstance(answers[-1], Confirmed):
                confirmed.append(outgoing.message.id)

        ballast.unlink()
        assert await broker.wait_for_room(10.0)

        arrivals, _ = await consume(broker, topology.queues[0].name)
        for delivery in await arrivals.reach(len(confirmed)):
            assert delivery.ack()
        assert isinstance(answers[-1], Nacked | Unknown)
        assert set(confirmed) <= set(arrivals.ids)
        await eventually(lambda: _is_taken(broker), seconds=10.0)
        await broker.stop()
    finally:
        subprocess.run(["umount", disk], check=True)


async def test_a_file_that_hangs_does_not_look_connected(make: Make) -> None:
    """Nothing fails on a disk that does not answer: thousands of accepted messages stayed in the outbox, and health
    said ok."""
    clock = ManualClock()
    broker = make(clock=clock)
    await broker.start(make_topology())
    assert await broker.wait_for_room(5.0)
    answers = threading.Event()
    assert broker._database is not None
    broker._database.write_soon(lambda _: answers.wait(10), lambda _: None)
    broker._ring()  # its next turn waits behind that
    await asyncio.sleep(0)

    await clock.advance(limits.EMBEDDED_SILENT_SECONDS + 1)

    assert (ConnectionState.DISCONNECTED, 0) == (broker.status().state, broker.room())
    assert "cannot be used: no answer for 11 s" in broker.status().issues[0]
    with pytest.raises(BrokerUnavailable, match="no answer for 11 s"):
        broker.submit(make_outgoing(), None, Outcomes())
    answers.set()
    await eventually(lambda: broker.status().state is ConnectionState.CONNECTED and broker.status().issues == ())


async def test_a_lock_that_fails_is_an_outage_that_shows_and_ends(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the writer's thread ended on it, the broker looked connected for ever and shipped nothing."""
    broker = make()
    await broker.start(make_topology())
    assert await broker.wait_for_room(5.0)

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", fail)
        assert [Unknown] == [type(outcome) for outcome in await publish(broker, make_outgoing())]
        await eventually(lambda: any("Input/output error" in issue for issue in broker.status().issues))

    assert await broker.wait_for_room(10.0)
    assert [Confirmed()] == await publish(broker, make_outgoing())
    assert () == broker.status().issues


async def test_an_ack_that_could_not_be_written_is_written_later(make: Make, tmp_path: Path) -> None:
    """Forgotten, the message would stay claimed for as long as this process lives."""
    broker = make()
    topology = make_topology()
    await start(_Only(broker), topology)
    await publish(broker, make_outgoing())
    arrivals, _ = await consume(broker, topology.queues[0].name)
    (delivery,) = await arrivals.reach(1)
    with closing(sqlite3.connect(tmp_path / "broker.db", isolation_level=None)) as other:
        other.execute("create trigger no_delete before delete on message begin select raise(abort, 'not now'); end")
        assert delivery.ack()
        await eventually(lambda: broker.status().connections[0].last_error is not None)
        other.execute("drop trigger no_delete")

        await eventually(lambda: other.execute("select count(*) from message").fetchone() == (0,), seconds=10.0)


class _Only:
    """A Brokers of one."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.capabilities = broker.capabilities
        self._broker = broker

    def another(self) -> EmbeddedBroker:
        return self._broker

    async def start(self, topology: Any) -> EmbeddedBroker:
        await self._broker.start(topology)
        return self._broker


async def test_a_stopped_broker_leaves_no_owner_and_no_lock_behind(make: Make, tmp_path: Path) -> None:
    """A deploy a day would otherwise leave a file a day."""
    broker = make()
    await start(_Only(broker), make_topology())
    during = list(tmp_path.glob("*.lock"))

    await broker.stop()

    assert 1 == len(during)
    assert [] == list(tmp_path.glob("*.lock"))
    with closing(sqlite3.connect(tmp_path / "broker.db")) as db:
        assert (0,) == db.execute("select count(*) from owner").fetchone()


async def test_a_broker_whose_owner_row_was_rescued_starts_over_as_another(make: Make, tmp_path: Path) -> None:
    """It was taken for dead. What it claimed under its old id from then on, nobody would ever rescue."""
    broker = make(claim_seconds=0.3)
    topology = make_topology()
    await start(_Only(broker), topology)
    await publish(broker, make_outgoing())
    arrivals, _ = await consume(broker, topology.queues[0].name)
    (delivery,) = await arrivals.reach(1)

    with closing(sqlite3.connect(tmp_path / "broker.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        other.execute("update message set owner = null")
        other.execute("delete from owner")
        other.execute("commit")

    _, again = await arrivals.reach(2)
    assert not delivery.ack()
    assert 1 == again.delivery_count
    assert again.ack()
