"""Leases and delays of the SQLite store and the embedded broker last as long as they should, whatever is done to clocks
and whatever becomes of processes and the machine."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from spoolproof.brokers.embedded import queues
from spoolproof.brokers.embedded.broker import _prepare
from spoolproof.ids import Ids
from spoolproof.limits import UNROUTABLE_DELAYS_SECONDS
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import QueueSpec, Topology
from spoolproof.ports.leases import Process
from spoolproof.sqlite.owners import OwnerLock, lock_path
from spoolproof.sqlite.steady import give_steady
from spoolproof.stores.sqlite import SqliteStore
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance._messages import make_outgoing

HOUR = 3600.0
LEASE_SECONDS = 15.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def opened(path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    """A store as one process has it; the block's end is a death: nothing is given back."""
    store = SqliteStore(path, clock=clock, ids=Ids(clock), outbox_rows_max=100)
    await store.start()
    try:
        await store.migrations.apply()
        await store.leases.ensure("outbox", ["00"])
        yield store
    finally:
        await store.stop()


async def acquired(store: SqliteStore, owner: UUID) -> list[int]:
    """Return the epochs of the leases an owner gets now."""
    fences = await store.leases.acquire("outbox", owner, 1, LEASE_SECONDS)
    return [fence.epoch for fence in fences]


def process(id: UUID) -> Process:
    return Process(id=id, service="shop", host="h", pid=1, roles=("outbox",))


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
async def test_a_lease_lasts_as_long_as_it_should_however_the_wall_clock_is_set(path: Path, seconds: float) -> None:
    """An hour ahead and put right: the service stood still for that hour. An hour forward: two held one lease."""
    clock = ManualClock()
    async with opened(path, clock) as store:
        assert [1] == await acquired(store, uuid4())
        await store.leases.beat(process(uuid4()), LEASE_SECONDS)
        clock.move_wall(seconds)
    async with opened(path, clock) as store:
        await clock.advance(LEASE_SECONDS - 1)
        assert [] == await acquired(store, uuid4())

        await clock.advance(2)

        assert [2] == await acquired(store, uuid4())
        assert [] == list(await store.leases.processes())


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
async def test_a_row_waits_as_long_as_it_should_however_the_wall_clock_is_set(path: Path, seconds: float) -> None:
    """A returned event waited for its queue, and then an hour for the clock."""
    clock = ManualClock()
    async with opened(path, clock) as store:
        await _defer_one(store, 5.0)
        clock.move_wall(seconds)

        assert [] == list(await store.outbox.promote_due([0]))
        await clock.advance(5.1)
        assert 1 == len(await store.outbox.promote_due([0]))


async def test_after_a_start_of_the_machine_nobody_holds_anything_and_no_row_waits_for_longer_than_it_may(
    path: Path,
) -> None:
    """The clock was an hour ahead when they were written."""
    ahead = ManualClock()
    async with opened(path, ahead) as store:
        await _defer_one(store, 5.0)
        await store.leases.beat(process(uuid4()), LEASE_SECONDS)
    clock = ManualClock(ahead.now() - timedelta(seconds=HOUR))
    async with opened(path, clock) as store:
        assert [2] == await acquired(store, uuid4())
        assert [] == list(await store.leases.processes())
        await clock.advance(max(UNROUTABLE_DELAYS_SECONDS) + 0.1)
        assert 1 == len(await store.outbox.promote_due([0]))


async def _defer_one(store: SqliteStore, seconds: float) -> None:
    message = Message(id="m", type="t", source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=b"{}")
    await store.outbox.append([Outgoing(message=message)], None)
    (fence,) = await store.leases.acquire("outbox", uuid4(), 1, LEASE_SECONDS)
    (row,) = (await store.outbox.fetch({0: 0}, [], 10)).rows
    assert await store.outbox.defer(row.ref, seconds, "returned", fence)


async def test_what_a_dead_process_held_is_free_as_soon_as_anybody_looks(path: Path) -> None:
    """The kernel knows that it is dead: nobody need wait for its lease after a crash."""
    clock, dead, alive = ManualClock(), uuid4(), uuid4()
    async with opened(path, clock) as store:
        await store.leases.beat(process(dead), LEASE_SECONDS)
        assert [1] == await acquired(store, dead)
    async with opened(path, clock) as store:
        await store.leases.beat(process(alive), LEASE_SECONDS)
        assert [alive] == [one.id for one in await store.leases.processes()]

        assert [2] == await acquired(store, alive)
        assert not lock_path(path, str(dead)).exists()


async def test_a_process_that_lives_keeps_what_it_holds_whoever_looks(path: Path) -> None:
    """Frozen or slow is not dead: only its lease tells."""
    clock, frozen = ManualClock(), uuid4()
    async with opened(path, clock) as store:
        await store.leases.beat(process(frozen), LEASE_SECONDS)
        assert [1] == await acquired(store, frozen)
        async with opened(path, clock) as other:
            assert [frozen] == [one.id for one in await other.leases.processes()]
            assert [] == await acquired(other, uuid4())


async def test_a_process_whose_lock_file_was_tidied_away_is_judged_by_its_lease(path: Path) -> None:
    """No file proves nothing: somebody may have tidied up around a process that lives."""
    clock, untidy = ManualClock(), uuid4()
    async with opened(path, clock) as store:
        await store.leases.beat(process(untidy), LEASE_SECONDS)
        lock_path(path, str(untidy)).unlink()

        assert [untidy] == [one.id for one in await store.leases.processes()]


async def test_a_process_that_leaves_in_order_leaves_no_lock_file(path: Path) -> None:
    """They would pile up beside the database, one for each deploy."""
    clock, leaving = ManualClock(), uuid4()
    async with opened(path, clock) as store:
        await store.leases.beat(process(leaving), LEASE_SECONDS)
        assert lock_path(path, str(leaving)).exists()

        await store.leases.beat(process(leaving), 0.0)

        assert not lock_path(path, str(leaving)).exists()


# --- the embedded broker ---------------------------------------------------------------------------------------------

TOPOLOGY = Topology(
    service="shop",
    exchange="events",
    queues=(QueueSpec(name="a", types=("test.*",), delivery_limit=2),),
    tiers_seconds=(60, 3600),
)


def _connected(path: Path, clock: ManualClock) -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    give_steady(connection, clock, queues.on_reboot)
    _prepare(connection, TOPOLOGY)
    return closing(connection)


def _delay(db: sqlite3.Connection, seconds: int) -> None:
    outgoing = make_outgoing(destination=f"delay:{seconds}", routing_key="a")
    queues.enqueue(db, queues.Routes(), [queues.parcel_of(outgoing, "shop", "events")], 1000)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
async def test_a_retry_waits_as_long_as_it_should_however_the_wall_clock_is_set(path: Path, seconds: float) -> None:
    """A retry of a minute took an hour and a minute, or came at once."""
    clock = ManualClock()
    with _connected(path, clock) as db:
        _delay(db, 60)
        owner = queues.add_owner(db, "u", 30.0)
        clock.move_wall(seconds)

        assert 60.0 == queues.seconds_until_due(db)
        assert [(owner, "u", False)] == queues.other_owners(db, 0)
        await clock.advance(61)
        assert 1 == queues.release_due(db, 10)
        assert [(owner, "u", True)] == queues.other_owners(db, 0)


async def test_after_a_start_of_the_machine_no_retry_waits_for_longer_than_its_own_delay(path: Path) -> None:
    """The clock was a day ahead when they were written; a delay that has run its time is over."""
    ahead = ManualClock()
    with _connected(path, ahead) as db:
        queues.add_owner(db, "u", 30.0)
        _delay(db, 60)
        _delay(db, 3600)
    clock = ManualClock(ahead.now() - timedelta(days=1))
    with _connected(path, clock) as db:
        assert 60.0 == queues.seconds_until_due(db)
        assert [True] == [has_expired for _, _, has_expired in queues.other_owners(db, 0)]
        await clock.advance(61)
        assert 1 == queues.release_due(db, 10)
        assert 3600.0 - 61 == queues.seconds_until_due(db)


def test_a_lock_nobody_can_make_is_no_lock(tmp_path: Path) -> None:
    """A row without one would look like that of a dead process to whoever finds the file."""
    with pytest.raises(OSError, match="No such file"):
        OwnerLock(tmp_path / "missing" / "store.db", "u")
