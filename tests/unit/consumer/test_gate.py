"""The gate holds back for an outage and for nothing else, and opens by itself, one delivery first."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from spoolproof import Service, Transaction, limits
from spoolproof.backoff import system_random
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.clock import SystemClock
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.destination import to_queue
from spoolproof.errors import StoreBusy, StoreUnavailable
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.message import Message, Outgoing
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.ports.state import State
from spoolproof.settings import Settings
from spoolproof.stores.sqlite import SqliteStore

AWAY = StoreUnavailable("away")


class Writing:
    """A table as the gate sees it: each write ends as the next of `answers` says, then well."""

    def __init__(self) -> None:
        self.answers: list[Exception] = []
        self.writes = 0

    async def put(self, kind: str, name: str, value: bytes) -> int:
        self.writes += 1
        if self.answers:
            raise self.answers.pop(0)
        return self.writes


class SkippingClock(SystemClock):
    """The machine's clock, some seconds on."""

    skipped_seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped_seconds


class Bench:
    def __init__(self) -> None:
        self.clock = SkippingClock()
        self.supervisor = Supervisor(self.clock, system_random())
        self.store = Writing()
        self.gate = Gate(cast(State, self.store), clock=self.clock, spawn=self.supervisor.spawn)

    async def lets_go(self) -> bool:
        """Whether the gate lets somebody go at once."""
        return await self.gate.wait(until=self.clock.monotonic())

    async def half_open(self) -> None:
        """Bring the gate there, over an outage of one write."""
        self.store.answers = [AWAY]
        assert await self.gate.confirms(AWAY)
        async with asyncio.timeout(5):
            await self.gate.wait()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.supervisor.stop()


async def test_who_waits_before_a_shut_gate_may_have_enough(bench: Bench) -> None:
    """L9: RabbitMQ takes a delivery away from a consumer that keeps it for half an hour, and counts that."""
    bench.store.answers = [AWAY] * 100

    assert await bench.lets_go()  # an open gate keeps nobody
    assert await bench.gate.confirms(AWAY)

    assert not await bench.gate.wait(until=bench.clock.monotonic() + 0.01)
    assert "away" == bench.gate.shut_reason


async def test_a_store_that_is_away_and_then_busy_opens_the_gate_in_the_end(bench: Bench) -> None:
    """A busy store refuses a write with a limit, not an outage; the gate must not stay shut for good over it."""
    bench.store.answers = [AWAY, StoreBusy(1, 1, "writes"), RuntimeError("nobody expects this one")]

    assert await bench.gate.confirms(AWAY)
    async with asyncio.timeout(5):
        await bench.gate.wait()
    bench.gate.passed()

    assert (None, []) == (bench.gate.shut_reason, bench.store.answers)
    assert await bench.lets_go()


async def test_an_error_that_no_write_confirms_is_no_outage(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """One message whose statements look like an outage must not hold up all others, nor fill the log."""
    assert not await bench.gate.confirms(AWAY)

    assert await bench.lets_go()
    assert [] == caplog.records


async def test_those_who_fail_together_ask_once(bench: Bench) -> None:
    """In an outage every lane fails at once; a store that is down needs no storm of questions."""
    bench.store.answers = [AWAY]

    answers = await asyncio.gather(*(bench.gate.confirms(AWAY) for _ in range(10)))

    assert ([True] * 10, 1) == (answers, bench.store.writes)


async def test_after_an_outage_one_goes_first(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """That the store writes one small row does not say that handlers can work."""
    with caplog.at_level(logging.INFO):
        await bench.half_open()
        others = [await bench.lets_go() for _ in range(3)]
        bench.gate.passed()

    assert [False] * 3 == others
    assert await bench.lets_go()
    assert ["consumer.gate.closed error=away", "consumer.gate.opened"] == [one.message for one in caplog.records]


async def test_one_that_fails_shuts_the_gate_again_without_a_word(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The outage is one outage, and logged as one."""
    await bench.half_open()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        await bench.half_open()

        assert [] == caplog.records
    assert not await bench.lets_go()


async def test_one_that_takes_long_does_not_hold_up_the_others_for_long(bench: Bench) -> None:
    """A handler may run for minutes; a consumer is back within seconds of its database."""
    await bench.half_open()
    assert not await bench.lets_go()

    bench.clock.skipped_seconds = limits.STORE_TRIAL_SECONDS

    assert [True, False] == [await bench.lets_go(), await bench.lets_go()]


async def test_whoever_waits_when_the_service_drains_goes_back(bench: Bench) -> None:
    """Its drain has a limit; the next process takes the message."""
    bench.store.answers = [AWAY] * 100
    await bench.gate.confirms(AWAY)
    waiting = asyncio.create_task(bench.gate.wait())
    await asyncio.sleep(0)

    bench.gate.drain()

    with pytest.raises(GateClosing):
        await waiting


@pytest.mark.parametrize("takes_transaction", [False, True])
async def test_a_sqlite_file_that_takes_no_writes_is_an_outage(tmp_path: Path, takes_transaction: bool) -> None:
    """A remount after a fault of the disk makes it read-only, and every read still works."""
    service = Service("shop", settings=Settings(store=f"sqlite:///{tmp_path / 'store.db'}", broker="memory://"))
    calls: list[int] = []

    async def with_tx(payload: dict[str, int], tx: Transaction) -> None:
        calls.append(payload["n"])

    async def without(payload: dict[str, int]) -> None:
        calls.append(payload["n"])

    service.on("charge", queue="charge", attempts=1)(with_tx if takes_transaction else without)
    await service.start()
    try:
        store, broker = service.runtime.store, service.runtime.broker.inner
        assert isinstance(store, SqliteStore)
        assert isinstance(broker, MemoryBroker)
        await _only_read(store, True)
        message = Message(id="m", type="charge", source="s", time=SystemClock().now(), body=b'{"n": 1}')
        broker.submit(Outgoing(message=message, destination=to_queue("charge")), 1, lambda results: None)
        async with asyncio.timeout(10):
            while not service.runtime.monitor.snapshot().local.is_gate_shut:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)  # several looks of a gate that takes a read for an answer
        await _only_read(store, False)
        async with asyncio.timeout(10):
            while not await store.database.read(_handled):
                await asyncio.sleep(0.01)

        assert [1] == calls
        assert [] == list(await store.dead_letters.search(DeadLetterFilter()))
    finally:
        await service.stop()


async def _only_read(store: SqliteStore, on: bool) -> None:
    parts = store.database._parts
    assert parts is not None
    await parts.writer.call(lambda: parts.writer.connection.execute(f"pragma query_only = {on}"))


def _handled(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("select count(*) from spoolproof_inbox").fetchone()
    return int(count)
