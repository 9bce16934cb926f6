"""What the PostgreSQL store promises beside its ports: outages, limits, plans; on a server that is really broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.errors import NotInTransaction, StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.message import Outgoing, pack_meta
from spoolproof.outbox.progress import Progress
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.ports.leases import Process
from spoolproof.ports.outbox import RowRef
from spoolproof.stores.postgres import PostgresStore
from spoolproof.stores.postgres.outbox import RELAY_SETTINGS, SQL
from spoolproof.testing.conformance import eventually, holds_for
from spoolproof.testing.conformance._messages import make_dead_letter, make_message, make_outgoing
from spoolproof.testing.conformance._store import fence_for, ready_rows
from spoolproof.testing.servers import PostgresServer
from spoolproof.testing.stores import postgres_store

pytestmark = [pytest.mark.integration, pytest.mark.servers]

RECOVERY_SECONDS = 2.0  #: of the server's return
PACE_SECONDS = 0.01
CLOCK = SystemClock()
IDS = Ids(CLOCK)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    async with postgres_store(postgres_url) as store:
        yield store


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


class Appender:
    """Appends one message after the other, through whatever happens, and remembers what was acknowledged."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.acknowledged: list[str] = []
        self.refusals = 0
        self.longest_gap_seconds = 0.0

    async def run(self, is_over: asyncio.Event) -> None:
        last = CLOCK.monotonic()
        while not is_over.is_set():
            outgoing = make_outgoing()
            try:
                await self._store.outbox.append([outgoing], None)
            except StoreUnavailable:
                self.refusals += 1
                await CLOCK.sleep(PACE_SECONDS)
                continue
            self.acknowledged.append(outgoing.message.id)
            now = CLOCK.monotonic()
            self.longest_gap_seconds = max(self.longest_gap_seconds, now - last)
            last = now


async def _restart_immediate(server: PostgresServer) -> None:
    await asyncio.to_thread(server.restart_immediate)


async def _kill_and_start(server: PostgresServer) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("outage", [_restart_immediate, _kill_and_start])
async def test_what_was_acknowledged_before_a_crash_of_the_server_is_there_after_it(
    store: PostgresStore,
    postgres: PostgresServer,
    connection: Any,
    outage: Callable[[PostgresServer], Awaitable[None]],
) -> None:
    """Rule 1 begins with the row: an append that returned must survive, and publishing goes on by itself."""
    appenders = [Appender(store) for _ in range(6)]
    is_over = asyncio.Event()

    async def break_it() -> float:
        await eventually(lambda: all(len(appender.acknowledged) > 20 for appender in appenders))
        await outage(postgres)
        back_at = CLOCK.monotonic()
        counts = [len(appender.acknowledged) for appender in appenders]
        await eventually(lambda: all(len(a.acknowledged) > n for a, n in zip(appenders, counts, strict=True)))
        recovered_at = CLOCK.monotonic()
        is_over.set()
        return recovered_at - back_at

    recovery_seconds, *_ = await asyncio.gather(break_it(), *(appender.run(is_over) for appender in appenders))

    async with store.transaction() as tx:
        kept = {row["message_id"] for row in await tx.fetch("select message_id from spoolproof.outbox")}
    acknowledged = {id for appender in appenders for id in appender.acknowledged}
    assert set() == acknowledged - kept
    assert all(appender.refusals > 0 for appender in appenders)
    assert recovery_seconds <= RECOVERY_SECONDS


async def test_a_store_that_is_away_at_the_start_can_be_started_later(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """The service retries start() until its database is there."""
    await asyncio.to_thread(postgres.stop)
    attempts: list[Exception] = []

    with pytest.raises(StoreUnavailable) as raised:
        async with postgres_store(postgres_url):
            attempts.append(AssertionError("started without a server"))
    await asyncio.to_thread(postgres.start)
    async with postgres_store(postgres_url) as store:
        await store.ping()

    assert [] == attempts
    assert "127.0.0.1" in str(raised.value)


async def test_a_frozen_server_is_given_up_within_the_limit(store: PostgresStore, postgres: PostgresServer) -> None:
    """Rule 6: a peer that keeps the connection open and answers nothing must not hang a handler, nor the stop."""
    is_frozen = asyncio.Event()
    has_begun = asyncio.Event()

    async def seconds_until_unavailable(work: Callable[[], Awaitable[object]]) -> float:
        await is_frozen.wait()
        started = CLOCK.monotonic()
        with pytest.raises(StoreUnavailable):
            await work()
        return CLOCK.monotonic() - started

    async def long_statement_of_a_user() -> None:
        async with store.transaction() as tx:
            has_begun.set()
            await tx.execute("select pg_sleep(60)")

    async def long_statement_past_us() -> None:
        async with store.transaction() as tx:
            assert isinstance(tx.raw, asyncpg.Connection)
            await tx.raw.execute("select pg_sleep(60)")

    async def surprised(work: Callable[[], Awaitable[None]]) -> float:
        with pytest.raises(StoreUnavailable):
            await work()
        return CLOCK.monotonic()

    async def freeze() -> float:
        await eventually(lambda: _is_sleeping(store, 2))
        await asyncio.to_thread(postgres.freeze)
        is_frozen.set()
        return CLOCK.monotonic()

    try:
        frozen_at, *ended = await asyncio.gather(
            freeze(), surprised(long_statement_of_a_user), surprised(long_statement_past_us)
        )
        single = await asyncio.gather(
            seconds_until_unavailable(lambda: store.outbox.append([make_outgoing()], None)),
            seconds_until_unavailable(lambda: store.outbox.fetch({0: 0}, (), 1)),
            seconds_until_unavailable(store.ping),
        )
        stopping_at = CLOCK.monotonic()
        await store.stop()
        stopped_after = CLOCK.monotonic() - stopping_at
    finally:
        await asyncio.to_thread(postgres.thaw)

    slack = 2.0
    assert all(at - frozen_at < 2 * limits.STATEMENT_SECONDS + limits.POSTGRES_CONNECT_SECONDS + slack for at in ended)
    assert all(seconds < limits.STATEMENT_SECONDS + limits.POSTGRES_CONNECT_SECONDS + slack for seconds in single)
    assert stopped_after < limits.CLOSE_SECONDS + slack


async def _is_sleeping(store: PostgresStore, count: int) -> bool:
    async with store.transaction() as tx:
        sql = "select count(*) as n from pg_stat_activity where wait_event = 'PgSleep'"
        return (await tx.fetch(sql))[0]["n"] == count


async def test_a_long_statement_on_a_server_that_answers_is_left_alone(store: PostgresStore) -> None:
    """The watch looks for a dead server, not for slow queries."""
    seconds = limits.STATEMENT_SECONDS + 1.5

    async with store.transaction() as tx:
        await tx.execute("select pg_sleep($1)", seconds)
        recorded = await store.inbox.record(tx, "orders", "m1")

    assert recorded
    assert await store.inbox.contains("orders", "m1")


async def test_a_connection_cut_under_a_users_statement_is_an_outage_not_their_error(
    store: PostgresStore, connection: Any
) -> None:
    """Rule 5: an infrastructure failure must not count as an attempt of the message in hand."""

    async def cut() -> None:
        await eventually(lambda: _is_sleeping(store, 1))
        await connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'")

    async def handle() -> None:
        with pytest.raises(StoreUnavailable):
            async with store.transaction() as tx:
                await tx.execute("select pg_sleep(30)")

    await asyncio.gather(handle(), cut())
    await store.ping()


async def test_a_users_own_mistake_passes_as_it_is(store: PostgresStore) -> None:
    """A handler may catch UniqueViolation; wrapped, nobody could."""
    with pytest.raises(asyncpg.UniqueViolationError):
        async with store.transaction() as tx:
            await tx.execute("create table item (id int primary key)")
            await tx.execute("insert into item values (1), (1)")


async def test_a_swallowed_error_does_not_turn_the_commit_into_a_silent_rollback(store: PostgresStore) -> None:
    """PostgreSQL answers COMMIT in a failed transaction with ROLLBACK and no error: the ack would lose the message."""
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        async with store.transaction() as tx:
            await store.inbox.record(tx, "orders", "m1")
            with pytest.raises(asyncpg.UndefinedTableError):
                await tx.execute("select * from nowhere")

    assert not await store.inbox.contains("orders", "m1")


async def test_a_savepoint_of_the_driver_recovers_from_an_error(store: PostgresStore) -> None:
    """`raw` is asyncpg's own connection: its nested transactions work inside ours."""
    async with store.transaction() as tx:
        await store.inbox.record(tx, "orders", "m1")
        raw = tx.raw
        assert isinstance(raw, asyncpg.Connection)
        with pytest.raises(asyncpg.UndefinedTableError):
            async with raw.transaction():
                await raw.execute("select * from nowhere")

    assert await store.inbox.contains("orders", "m1")


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_block_that_ends_its_transaction_itself_is_told_so(store: PostgresStore, end: str) -> None:
    """What it wrote afterwards would otherwise be outside any transaction, and nobody would know."""
    with pytest.raises(NotInTransaction):
        async with store.transaction() as tx:
            assert isinstance(tx.raw, asyncpg.Connection)
            await tx.raw.execute(end)


async def test_what_a_user_sets_for_the_session_is_gone_in_the_next_transaction(store: PostgresStore) -> None:
    """Connections are shared: one handler's search_path or lock is none of another's business."""
    async with store.transaction() as tx:
        await tx.execute("set search_path = elsewhere")
        await tx.fetch("select pg_advisory_lock(1)")

    async with store.transaction() as tx:
        (row,) = await tx.fetch(
            "select current_setting('search_path') as path, current_setting('synchronous_commit') as sync,"
            " (select count(*) from pg_locks where locktype = 'advisory') as locks"
        )

    assert ('"$user", public', "on", 0) == (row["path"], row["sync"], row["locks"])


async def test_busy_handlers_wait_their_turn_and_never_starve_the_leases(store: PostgresStore) -> None:
    """Rule 6: a clear error at the limit; and a process full of work must still renew."""
    async with AsyncExitStack() as stack:
        for _ in range(limits.POSTGRES_CONNECTIONS_MAX):
            await stack.enter_async_context(store.transaction())

        with pytest.raises(StoreUnavailable, match=f"all {limits.POSTGRES_CONNECTIONS_MAX} connections are in use"):
            await store.outbox.append([make_outgoing()], None)
        await store.leases.ensure("outbox", ["00"])

    await store.outbox.append([make_outgoing()], None)


async def test_a_cancelled_caller_gives_its_connection_back(store: PostgresStore) -> None:
    """Forty clients that hang up must not use up twenty connections."""
    for _ in range(2 * limits.POSTGRES_CONNECTIONS_MAX):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005), store.transaction() as tx:
                await tx.execute("select pg_sleep(10)")

    await store.outbox.append([make_outgoing()], None)
    assert 1 == (await store.outbox.backlog()).rows


async def test_a_ring_reaches_the_other_processes_also_after_the_server_came_back(
    store: PostgresStore, postgres: PostgresServer, postgres_url: str
) -> None:
    """A relay elsewhere ships within milliseconds; a lost LISTEN connection must not turn that off for good."""
    async with postgres_store(postgres_url) as other, postgres_store(postgres_url, listen=False) as deaf:

        async def is_heard() -> bool:
            store.wakeup.notify()
            return await other.wakeup.wait(0.2)

        await eventually(is_heard)
        await asyncio.to_thread(postgres.restart_immediate)
        await eventually(is_heard)

        store.wakeup.notify()
        assert not await deaf.wakeup.wait(0.2)


async def test_a_process_does_not_hear_its_own_ring_twice(store: PostgresStore) -> None:
    """A relay alone would otherwise read an empty outbox after every publish."""
    await eventually(lambda: _is_quiet(store))

    store.wakeup.notify()

    assert await store.wakeup.wait(1.0)
    await holds_for(lambda: _is_quiet(store), seconds=3 * limits.NOTIFY_INTERVAL_SECONDS)


async def _is_quiet(store: PostgresStore) -> bool:
    return not await store.wakeup.wait(0.05)


async def test_the_migration_script_does_what_migrate_does(postgres: PostgresServer, postgres_url: str) -> None:
    """Some databases are changed by other tools only; their schema must be the same, version included."""
    async with postgres_store(postgres_url, migrate=False) as store:
        await asyncio.to_thread(postgres.psql, store.migrations.sql(), database=postgres_url.rpartition("/")[2])

        assert store.migrations.needed == await store.migrations.found()
        assert [] == await store.migrations.apply()
        await store.outbox.append([make_outgoing()], None)


async def test_reading_a_batch_costs_the_same_whatever_waits_behind_it(postgres_url: str) -> None:
    """P5: a plan that sorts or scans the shard is fast in every test and dead after an outage of the broker."""
    async with postgres_store(postgres_url):
        connection = await asyncpg.connect(postgres_url, server_settings=dict(RELAY_SETTINGS))
        try:
            await _fill(connection, 10_000)
            few = await _pages_of_fetch(connection)
            await _fill(connection, 290_000)
            many = await _pages_of_fetch(connection)
            await connection.execute("truncate spoolproof.outbox")
        finally:
            await connection.close()

    assert few > 0
    assert many <= 1.5 * few


async def test_dead_rows_that_a_forgotten_snapshot_keeps_are_passed_once_and_in_bounded_portions(
    postgres_url: str, connection: Any
) -> None:
    """A backup or a session somebody left open keeps every row that ever was: walked over with each read, they took the
    relay from milliseconds to half a minute, and then to its time limit for ever."""
    forgotten: Any = await asyncpg.connect(postgres_url)
    try:
        async with postgres_store(postgres_url) as store:
            await forgotten.execute("begin isolation level repeatable read; select 1 from spoolproof.outbox")
            await store.outbox.append([make_outgoing()], None)
            async with connection.transaction():
                await _insert(connection, 150_000)
                await connection.execute("delete from spoolproof.outbox where message_id <> 'x' and id > 1")
            progress = Progress()
            progress.hold(dict.fromkeys(range(16), 1), 0.0)
            found = [await _read(store, progress) for _ in range(20)]
            await store.outbox.append([make_outgoing()], None)
            newest = await _read(store, progress)
            (drawn,) = await connection.fetchrow("select last_value from spoolproof.outbox_order")

        assert 1 == len({ref for refs in found for ref in refs})
        assert 1 == len(newest)
        assert {drawn - 1} == set(progress.cursors.values())
    finally:
        await forgotten.close()


async def test_removing_rows_looks_at_these_rows_however_many_dead_ones_there_are(postgres_url: str) -> None:
    """For a table that statistics call empty, reading its whole index is the cheapest plan: with 2 million dead rows
    that a forgotten snapshot kept, no delete of confirmed rows ended within its limit, and the relay stood still."""
    forgotten: Any = await asyncpg.connect(postgres_url)
    connection = await asyncpg.connect(postgres_url, server_settings=dict(RELAY_SETTINGS))
    try:
        async with postgres_store(postgres_url):
            await forgotten.execute("begin isolation level repeatable read; select 1 from spoolproof.outbox")
            await _insert(connection, 20_000)
            await connection.execute("delete from spoolproof.outbox")
            await connection.execute("analyze spoolproof.outbox")
            await _insert(connection, 10)
            rows = await connection.fetch("select shard, id from spoolproof.outbox")

            plan = await _explain(connection, "remove", [row["shard"] for row in rows], [row["id"] for row in rows])

            assert 0 == await connection.fetchval("select count(*) from spoolproof.outbox")
            assert _pages(plan) < 200
    finally:
        await connection.close()
        await forgotten.close()


async def _read(store: PostgresStore, progress: Progress) -> list[RowRef]:
    cursors = progress.begin((), 0.0)
    page = await store.outbox.fetch(cursors, (), 100)
    progress.note(page, 0.0)
    return [row.ref for row in page.rows]


async def test_a_dead_letter_of_the_earlier_release_is_found_by_its_bare_id(
    store: PostgresStore, connection: Any
) -> None:
    """It is the same dead letter when its message fails again, in the relay too, or succeeds, and none of another event
    of that id."""
    message = make_message()
    other = msgspec.structs.replace(message, source="another")
    await connection.execute(
        "insert into spoolproof.dead_letter (id, consumer, message_id, destination, type, headers, body, reason,"
        " fingerprint, error_class, error, stack, attempts, state, first_failed_at, last_failed_at)"
        " select gen_random_uuid(), c, $1, 'queue:orders', $2, $3, '', 'r', 'f', 'c', 'e', '', '[]', 'replaying',"
        " '2020-01-01', '2020-01-01' from unnest('{orders,relay:events}'::text[]) c",
        message.id,
        message.type,
        pack_meta(message),
    )
    await store.dead_letters.add(make_dead_letter(other))
    await store.dead_letters.add(make_dead_letter(message, error="again"))
    await store.outbox.append([Outgoing(message=message)], None)
    (row,) = await ready_rows(store)
    relays = make_dead_letter(message, consumer="relay:events", error="unroutable again")
    assert await store.outbox.give_up(row.ref, relays, await fence_for(store, row.ref.shard))
    found = await store.dead_letters.search(DeadLetterFilter(message_id=message.id))
    async with store.transaction() as tx:
        await store.dead_letters.resolve(tx, "orders", message)
    after = await store.dead_letters.search(DeadLetterFilter(consumer="orders"))

    assert {("orders", "again"), ("relay:events", "unroutable again"), ("orders", "no stock")} == {
        (record.consumer, record.error) for record in found
    }
    assert [DeadLetterState.RESOLVED, DeadLetterState.OPEN] == [record.state for record in after]


async def test_a_publish_does_not_wait_to_learn_how_full_the_outbox_is(store: PostgresStore) -> None:
    """The count may be slow, or its connections busy; an old figure serves as well."""
    async with AsyncExitStack() as busy:
        for _ in range(limits.POSTGRES_UPKEEP_CONNECTIONS_MAX):
            await busy.enter_async_context(store.upkeep.connection())

        async with asyncio.timeout(limits.STATEMENT_SECONDS / 2):
            await store.outbox.append([make_outgoing()], None)


async def _fill(connection: Any, rows: int) -> None:
    await _insert(connection, rows)
    await connection.execute("vacuum (analyze) spoolproof.outbox")


async def _insert(connection: Any, rows: int) -> None:
    await connection.execute(
        "insert into spoolproof.outbox (shard, message_id, destination, type, ordering_key, headers, body)"
        " select i % 16, i::text, 'events', 't', 'k' || i % 1000, $1::jsonb, '{}' from generate_series(1, $2::int) i",
        pack_meta(make_message()),
        rows,
    )


async def _pages_of_fetch(connection: Any) -> int:
    """Return the pages that fetching 100 rows of one shard touches."""
    plan = await _explain(connection, "fetch", [3], [0], ["queue:full"], 100, [], 50_000, 1_000_000, "0")
    assert 100 == plan["Actual Rows"]
    return _pages(plan)


async def _explain(connection: Any, statement: str, *values: object) -> dict[str, Any]:
    text = await connection.fetchval(f"explain (analyze, buffers, format json) {SQL[statement]}", *values)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def _pages(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_a_clock_put_back_by_an_hour_holds_nothing_up_so_long(store: PostgresStore, connection: Any) -> None:
    """Leases, deferrals and process rows are by the server's clock: a dead process would have held its shards, and
    counted as a peer, for an hour."""
    dead, heir = process(), process()
    await store.leases.beat(dead, 15.0)
    await store.leases.ensure("outbox", ["00"])
    (fence,) = await store.leases.acquire("outbox", dead.id, 1, 15.0)
    await store.outbox.append([make_outgoing()], None)
    (ref,) = [RowRef(shard, id) for shard, id in await connection.fetch("select shard, id from spoolproof.outbox")]
    assert await store.outbox.defer(ref, 5.0, "returned", fence)
    await connection.execute("update spoolproof.lease set lease_until = lease_until + interval '1 h'")
    await connection.execute("update spoolproof.process set expires_at = expires_at + interval '1 h'")
    await connection.execute("update spoolproof.outbox set available_at = available_at + interval '1 h'")

    assert [] == list(await store.leases.processes())
    assert [] == list(await store.leases.acquire("outbox", heir.id, 1, 0.1))  # its holder may be alive, and renew
    assert [fence] == list(await store.leases.renew([fence], 0.1))
    await eventually(lambda: _acquires(store, heir.id))
    assert [ref] == list(await store.outbox.promote_due([ref.shard]))


async def _acquires(store: PostgresStore, owner: UUID) -> bool:
    return len(await store.leases.acquire("outbox", owner, 1, 15.0)) == 1


def process() -> Process:
    return Process(id=IDS.uuid7(), service="shop", host="h", pid=1, roles=("outbox",))
