"""The monitor on a real store and broker in memory, on a clock that moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from random import Random
from uuid import UUID

import pytest

from spoolproof.brokers.memory import MemoryBroker
from spoolproof.errors import SettingsError
from spoolproof.health.monitor import Monitor
from spoolproof.health.snapshot import Local, Need, Status
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import Topology
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

TOPOLOGY = Topology(service="shop", exchange="e", queues=(), tiers_seconds=())


class Bench:
    """A monitor and what it watches. `local` is what the process says of itself."""

    def __init__(self, *, ready_needs: tuple[str, ...] = (), is_broker_required: bool = False) -> None:
        self.clock = ManualClock()
        self.random = Random(7)
        self.supervisor = Supervisor(self.clock, self.random)
        self.store = MemoryStore(clock=self.clock, ids=Ids(self.clock), outbox_rows_max=1000)
        self.broker = MemoryBroker(service="shop", clock=self.clock, spawn=self.supervisor.spawn)
        self.local = Local(is_started=True)
        self.monitor = Monitor(
            self.store,
            self.broker,
            service="shop",
            version="1",
            detail="loopback",
            ready_needs=ready_needs,
            is_broker_required=is_broker_required,
            local=lambda: self.local,
            clock=self.clock,
            random=self.random,
        )

    async def check(self, times: int = 1) -> None:
        """Let the monitor check so many times, 10 s apart."""
        for _ in range(times):
            turn = asyncio.create_task(self.monitor.run_once())
            for _ in range(20):
                await asyncio.sleep(0)
            await self.clock.advance(11)
            await turn

    def outgoing(self, number: int) -> Outgoing:
        message = Message(id=str(number), type="t", source="s", time=self.clock.now(), body=b"{}")
        return Outgoing(message=message)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.store.start()
    await made.broker.start(TOPOLOGY)
    await made.monitor.start()
    yield made
    await made.broker.stop()
    await made.store.stop()
    await made.supervisor.stop()


def status_of(bench: Bench) -> Status:
    db = bench.monitor.snapshot().db
    assert db is not None
    return db.status


async def test_the_store_is_healthy_as_soon_as_it_was_reached(bench: Bench) -> None:
    """A start that succeeded is proof; waiting for two checks would keep a good process out for 20 s."""
    assert Status.HEALTHY is status_of(bench)


async def test_a_store_nobody_has_reached_is_not_healthy() -> None:
    """Before the first contact nothing can be accepted; the reason is shown by its class alone."""
    bench = Bench()

    bench.monitor.store_failed(OSError("password=hunter2"))

    db = bench.monitor.snapshot().db
    assert db is not None
    assert (Status.UNHEALTHY, "OSError") == (db.status, db.error)


async def test_three_failures_turn_the_store_and_two_successes_turn_it_back(bench: Bench) -> None:
    """One lost packet must not take a process out, one answer must not bring it back."""
    await bench.store.stop()
    seen = []
    for _ in range(3):
        await bench.check()
        seen.append(status_of(bench))
    await bench.store.start()
    for _ in range(2):
        await bench.check()
        seen.append(status_of(bench))

    assert [
        Status.HEALTHY,
        Status.HEALTHY,
        Status.UNHEALTHY,
        Status.UNHEALTHY,
        Status.HEALTHY,
    ] == seen


async def test_a_shut_gate_turns_the_store_at_once(bench: Bench) -> None:
    """A consumer that met the outage knows 30 s before the checks do."""
    bench.local = replace(bench.local, is_gate_shut=True)
    shut = status_of(bench)
    bench.local = replace(bench.local, is_gate_shut=False)

    assert [Status.UNHEALTHY, Status.HEALTHY] == [shut, status_of(bench)]


async def test_a_result_that_is_too_old_is_unknown(bench: Bench) -> None:
    """A monitor that stopped must not leave its last good word standing."""
    await bench.check()
    await bench.clock.advance(31)

    assert Status.UNKNOWN is status_of(bench)
    assert bench.monitor.snapshot().backlog is None


async def test_the_broker_is_read_live_and_its_outage_has_one_beginning(bench: Bench) -> None:
    """Connection events count at once; each new attempt must not make the outage look young."""
    await bench.check(9)
    lost_at = bench.clock.now()
    bench.broker.lose_connection("connection reset by peer: password=hunter2")
    first = bench.monitor.snapshot().broker
    await bench.clock.advance(40)
    later = bench.monitor.snapshot().broker

    assert first is not None
    assert later is not None
    assert (Status.UNHEALTHY, lost_at) == (first.status, first.since)
    assert (lost_at, 40.0) == (later.since, later.away_seconds)
    assert "hunter2" not in repr(later)

    bench.broker.restore_connection()
    back = bench.monitor.snapshot().broker

    assert back is not None
    assert (Status.HEALTHY, 0.0, None) == (back.status, back.away_seconds, back.error)


async def test_the_backlog_is_sampled_in_the_background(bench: Bench) -> None:
    """`pending_events` may be 10 s old, and costs a probe nothing."""
    await bench.store.outbox.append([bench.outgoing(1), bench.outgoing(2)], None)

    before = bench.monitor.snapshot().backlog
    await bench.check()
    after = bench.monitor.snapshot().backlog

    assert before is None
    assert after is not None
    assert (2, bench.clock.now() - timedelta(seconds=11)) == (after.rows, after.oldest_at)


async def test_shards_without_a_relay_are_counted_and_timed(bench: Bench) -> None:
    """Rows that nobody ships wait for ever, and nothing else would tell."""
    await bench.store.leases.ensure("outbox", ["00", "01"])
    await bench.store.leases.acquire("outbox", UUID(int=1), 1, 1000.0)
    await bench.check(7)
    ownership = bench.monitor.snapshot().ownership

    assert ownership is not None
    assert (2, 1) == (ownership.shards, ownership.unowned)
    assert 60 <= ownership.seconds <= 78


async def test_a_check_that_hangs_fails_within_its_second(bench: Bench) -> None:
    """A database that accepts and never answers is away."""
    never = asyncio.Event()

    async def hang() -> None:
        await never.wait()

    bench.store.ping = hang  # type: ignore[method-assign]
    turn = asyncio.create_task(bench.monitor.run_once())
    async with asyncio.timeout(5):
        while bench.monitor.snapshot().db.error is None:  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)

    assert "TimeoutError" == bench.monitor.snapshot().db.error  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("bench", "need", "needs"),
    [
        (Bench(), Need.OPTIONAL, set()),
        (Bench(is_broker_required=True), Need.CRITICAL, {"memory"}),
        (Bench(ready_needs=("memory",)), Need.CRITICAL, {"memory"}),
        (Bench(ready_needs=("db",)), Need.OPTIONAL, {"db"}),
    ],
)
async def test_a_required_broker_is_critical_and_readiness_waits_for_it(
    bench: Bench, need: Need, needs: set[str]
) -> None:
    """B1: what the user declared is what the probes follow."""
    snapshot = bench.monitor.snapshot()

    assert snapshot.broker is not None
    assert (need, needs) == (snapshot.broker.need, set(snapshot.needs))


def test_an_unknown_need_is_a_fault_at_start() -> None:
    """A typing error here would never fail a probe, which nobody would notice before the outage."""
    with pytest.raises(SettingsError, match="SPOOLPROOF_READY_NEEDS=rabitmq: the dependencies are db, rabbitmq"):
        Bench(ready_needs=("rabitmq",))
