"""The monitor on a real store and broker in memory, on a clock that moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from uuid import UUID

import pytest

from spoolproof import limits
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.errors import StoreUnavailable
from spoolproof.health.monitor import Monitor
from spoolproof.health.sampler import Sampler
from spoolproof.health.snapshot import Dependency, Local, Need, OpenDeadLetters, Status
from spoolproof.health.verdict import issues_of
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import Topology
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance._messages import make_dead_letter

TOPOLOGY = Topology(service="shop", exchange="e", queues=(), tiers_seconds=())


class Bench:
    """A monitor and what it watches. `local` is what the process says of itself."""

    def __init__(self, *, ready_needs: tuple[str, ...] = (), is_broker_required: bool = False) -> None:
        self.clock = ManualClock()
        self.random = Random(7)
        self.supervisor = Supervisor(self.clock, self.random)
        self.store = MemoryStore(clock=self.clock, ids=Ids(self.clock), outbox_rows_max=1000)
        self.broker = MemoryBroker(clock=self.clock, spawn=self.supervisor.spawn)
        self.local = Local(is_started=True)
        sampler = Sampler(
            *(self.store.services, self.store.outbox, self.store.leases, self.store.dead_letters),
            lease_seconds=15.0,
            clock=self.clock,
            random=self.random,
        )
        self.monitor = Monitor(
            sampler,
            self.broker,
            store=self.store.name,
            ping=lambda: self.store.ping(),  # a test may replace it
            service="shop",
            version="1",
            detail="loopback",
            ready_needs=ready_needs,
            is_broker_required=is_broker_required,
            local=lambda: self.local,
            clock=self.clock,
            random=self.random,
        )

    async def watch(self, seconds: float) -> None:
        """Let the monitor turn for so long."""
        turns = asyncio.create_task(self._turn())
        await self.clock.advance(seconds)
        turns.cancel()
        await asyncio.gather(turns, return_exceptions=True)

    async def seconds_until(self, condition: Callable[[], bool]) -> float:
        """Let the monitor turn until it is so; returns after how long."""
        turns = asyncio.create_task(self._turn())
        began = self.clock.monotonic()
        while not condition():
            assert self.clock.monotonic() - began < 60
            await self.clock.advance(0.05)
        turns.cancel()
        await asyncio.gather(turns, return_exceptions=True)
        return self.clock.monotonic() - began

    async def _turn(self) -> None:
        while True:
            await self.monitor.run_once()

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


def db_of(bench: Bench) -> Dependency:
    db = bench.monitor.snapshot().db
    assert db is not None
    return db


def status_of(bench: Bench) -> Status:
    return db_of(bench).status


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


async def test_an_outage_is_seen_within_seconds_and_so_is_its_end(bench: Bench) -> None:
    """Half a minute of 200 while every request fails, and then of 503 while all is well, is what a probe is to end."""
    await bench.watch(30.0)
    gone_at = bench.clock.now()
    await bench.store.stop()
    seen_seconds = await bench.seconds_until(lambda: status_of(bench) is Status.UNHEALTHY)
    db = db_of(bench)
    await bench.watch(60.0)
    later = db_of(bench)
    await bench.store.start()
    back_at = bench.clock.now()
    back_seconds = await bench.seconds_until(lambda: status_of(bench) is Status.HEALTHY)
    back = db_of(bench)

    assert seen_seconds < 2.0
    assert back_seconds < 2.0
    assert ("StoreUnavailable", "StoreUnavailable", None) == (db.error, later.error, back.error)
    assert gone_at <= db.since <= gone_at + timedelta(seconds=1.1)
    assert db.since == later.since
    assert back_at <= back.since <= back_at + timedelta(seconds=0.6)
    assert 60.0 <= later.away_seconds < 63.0


async def test_one_bad_answer_takes_no_process_out_and_one_good_one_brings_none_back(bench: Bench) -> None:
    """A lost packet is no outage, and the first answer of a database that still recovers is no return."""
    answers = iter([True, False, True, False, False, True, False, True, True])
    seen = []

    async def ping() -> None:
        if not next(answers):
            raise StoreUnavailable("planted")

    bench.store.ping = ping  # type: ignore[method-assign]
    for _ in range(9):
        turn = asyncio.create_task(bench.monitor.run_once())
        await bench.clock.advance(1.2)
        await turn
        seen.append(status_of(bench) is Status.HEALTHY)

    assert [True, True, True, True, False, False, False, False, True] == seen


async def test_a_change_of_readiness_is_logged_with_its_reason_and_its_length(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Work stops coming, and somebody will ask the log why; a start is no change."""
    bench.local = Local()
    await bench.watch(2.0)
    bench.local = Local(is_started=True)
    await bench.watch(2.0)
    assert [] == caplog.messages

    await bench.store.stop()
    await bench.watch(20.0)
    await bench.store.start()
    await bench.watch(20.0)

    assert ["WARNING", "WARNING"] == [record.levelname for record in caplog.records]
    assert "health.unready reason=store_unavailable: probes are told to send no work here" == caplog.messages[0]
    assert caplog.messages[1].startswith("health.ready seconds=")


async def test_a_gate_that_stays_shut_while_the_store_answers_is_an_outage(bench: Bench) -> None:
    """A database that answers reads and takes no writes is of no use to a request; a gate about to open is no news."""
    await bench.watch(5.0)
    bench.local = replace(bench.local, is_gate_shut=True)
    shut_at = bench.clock.now()
    await bench.watch(limits.HEALTH_GATE_SECONDS - 0.1)
    before = db_of(bench)
    await bench.watch(1.5)
    after = db_of(bench)
    bench.local = replace(bench.local, is_gate_shut=False)

    assert [Status.HEALTHY, Status.UNHEALTHY, Status.HEALTHY] == [before.status, after.status, status_of(bench)]
    assert "StoreUnavailable" == after.error
    assert shut_at <= after.since <= shut_at + timedelta(seconds=1.1)


async def test_the_gate_does_not_keep_a_store_away_that_is_back(bench: Bench) -> None:
    """It opens up to seconds later, one delivery first; requests are served meanwhile."""
    await bench.store.stop()
    await bench.watch(10.0)
    bench.local = replace(bench.local, is_gate_shut=True)
    await bench.watch(10.0)
    await bench.store.start()

    assert await bench.seconds_until(lambda: status_of(bench) is Status.HEALTHY) < 2.0


async def test_a_result_that_is_too_old_is_unknown(bench: Bench) -> None:
    """A monitor that stopped must not leave its last good word standing."""
    await bench.watch(1.0)
    await bench.clock.advance(31)

    assert Status.UNKNOWN is status_of(bench)
    assert bench.monitor.snapshot().backlog is None


async def test_the_broker_is_read_live_and_its_outage_has_one_beginning(bench: Bench) -> None:
    """Connection events count at once; each new attempt must not make the outage look young."""
    await bench.watch(90.0)
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
    written_at = bench.clock.now()

    before = bench.monitor.snapshot().backlog
    await bench.watch(11.0)
    after = bench.monitor.snapshot().backlog

    assert before is None
    assert after is not None
    assert (2, written_at) == (after.rows, after.oldest_at)


async def test_shards_without_a_relay_are_counted_and_timed(bench: Bench) -> None:
    """Rows that nobody ships wait for ever, and nothing else would tell."""
    await bench.store.leases.ensure("outbox", ["00", "01"])
    (held,) = await bench.store.leases.acquire("outbox", UUID(int=1), 1, 15.0)
    for _ in range(15):
        await bench.watch(5.0)
        await bench.store.leases.renew([held], 15.0)
    ownership = bench.monitor.snapshot().ownership

    assert ownership is not None
    assert (2, 1) == (ownership.shards, ownership.unowned)
    assert 60 <= ownership.seconds <= 78


async def test_rows_that_wait_for_the_lease_of_a_dead_process_are_an_issue_before_it_ends(bench: Bench) -> None:
    """kill -9 and a restart: for a quarter of a minute nothing leaves, and nothing else says why."""
    await bench.store.leases.ensure("outbox", ["00"])
    await bench.store.leases.acquire("outbox", UUID(int=1), 1, 15.0)
    await bench.store.outbox.append([bench.outgoing(1)], None)
    before = issues_of(bench.monitor.snapshot())
    seen_seconds = await bench.seconds_until(lambda: len(issues_of(bench.monitor.snapshot())) > 0)

    assert [] == before
    assert seen_seconds < 14.0
    (issue,) = issues_of(bench.monitor.snapshot())
    assert issue.text.startswith("outbox: 1 of 1 shards have no relay for ")
    assert issue.text.endswith("; 1 event waits")


async def test_open_dead_letters_are_counted(bench: Bench) -> None:
    """A message given up on waits for a person, who has to be told."""
    await bench.watch(1.0)
    before = bench.monitor.snapshot().dead_letters
    record = make_dead_letter()
    await bench.store.dead_letters.add(record)
    await bench.store.dead_letters.add(make_dead_letter())
    await bench.watch(11.0)
    found = bench.monitor.snapshot().dead_letters
    for one in await bench.store.dead_letters.search(DeadLetterFilter()):
        await bench.store.dead_letters.discard(one.id, "me", "seen")
    await bench.watch(11.0)

    assert before is None
    assert OpenDeadLetters(count=2, oldest_at=record.first_failed_at) == found
    assert bench.monitor.snapshot().dead_letters is None


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
