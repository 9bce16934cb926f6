"""What the SQLite store promises beyond the ports: bounded work, a copy before each migration, one file for many."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from spoolproof.clock import SystemClock
from spoolproof.errors import OutboxFull
from spoolproof.ids import Ids
from spoolproof.message import Message, Outgoing, pack_meta
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.ports.services import Block
from spoolproof.ports.store import Migration
from spoolproof.sqlite import Database
from spoolproof.stores.migrations import load
from spoolproof.stores.sqlite import SqliteStore
from spoolproof.stores.sqlite.migrations import SqliteMigrations
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance._messages import make_dead_letter

CLOCK = SystemClock()
IDS = Ids(CLOCK)
NEEDED = load("spoolproof.stores.sqlite")[-1].version
NEXT = Migration(
    NEEDED + 1,
    "colours",
    "create table colour (name text); -- a comment; with a semicolon\n"
    "insert into colour values ('a;b');\n"
    "create trigger colour_log after insert on colour begin delete from colour where name = ';'; select 1; end;\n",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def opened(path: Path, rows_max: int = 1_000_000) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, clock=CLOCK, ids=IDS, outbox_rows_max=rows_max)
    await store.start()
    try:
        await store.migrations.apply()
        yield store
    finally:
        await store.stop()


def event(key: str | None = None) -> Outgoing:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return Outgoing(message=Message(id=IDS.message_id(), type="t", source="s", time=time, key=key, body=b"{}"))


async def cost_of_a_fetch(path: Path, rows: int, deferred: int) -> int:
    """Return how many steps of SQLite's machine one relay read takes."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    async with opened(path) as store:
        await store.outbox.append([event(key=f"k{n % 50}") for n in range(rows)], None)
        with closing(sqlite3.connect(path)) as other, other:
            sql = "update spoolproof_outbox set state = 1, available_at = 1e12 where ordering_key is null or id <= ?"
            other.execute(sql.replace("ordering_key is null or ", ""), (deferred,))
            other.execute("update spoolproof_outbox set ordering_key = 'x' || id where id <= ?", (deferred,))
        await store.database.read(lambda db: db.set_progress_handler(step, 1))
        assert 100 == len((await store.outbox.fetch({0: 0}, ["queue:a"], 100, range(50))).rows)
        await store.database.read(lambda db: db.set_progress_handler(None, 0))
    return steps


async def test_a_relays_read_costs_the_same_whatever_the_backlog(tmp_path: Path) -> None:
    """P5: 5 million rows waiting must not slow the relay down; nor 5 000 that wait for their next attempt."""
    small = await cost_of_a_fetch(tmp_path / "small.db", rows=1000, deferred=100)
    large = await cost_of_a_fetch(tmp_path / "large.db", rows=20_000, deferred=100)
    deferred = await cost_of_a_fetch(tmp_path / "deferred.db", rows=20_000, deferred=10_000)

    assert large < 1.1 * small
    assert deferred < 1.1 * small


async def test_one_old_row_does_not_make_the_outbox_look_full(path: Path) -> None:
    """Rows are judged by the span of their ids, which one deferred row stretches; near the limit they are counted."""
    async with opened(path, rows_max=10) as store:
        await store.outbox.append([event() for _ in range(9)], None)
        await store.outbox.remove([row.ref for row in (await store.outbox.fetch({0: 1}, (), 8)).rows])
        await store.outbox.append([event() for _ in range(9)], None)
    async with opened(path, rows_max=10) as restarted:
        with pytest.raises(OutboxFull, match="10 of at most 10"):
            await restarted.outbox.append([event()], None)
        refs = [row.ref for row in (await restarted.outbox.fetch({0: 1}, (), 5)).rows]
        await restarted.outbox.remove(refs)
        await restarted.outbox.append([event() for _ in range(5)], None)


async def test_an_id_never_comes_back(path: Path) -> None:
    """A late remove of the old row would take the new one, unsent."""
    async with opened(path) as store:
        await store.outbox.append([event()], None)
        (old,) = (await store.outbox.fetch({0: 0}, (), 1)).rows
        await store.outbox.remove([old.ref])
    async with opened(path) as store:
        await store.outbox.append([event()], None)
        (new,) = (await store.outbox.fetch({0: 0}, (), 1)).rows

    assert new.ref.id > old.ref.id


async def test_a_commit_by_another_process_ends_a_wait(path: Path) -> None:
    """P6: within one poll of 50 ms, not of a second."""
    async with opened(path) as store, opened(path) as other:
        while await store.wakeup.wait(0.1):
            pass
        started = CLOCK.monotonic()
        await other.outbox.append([event()], None)

        assert await store.wakeup.wait(5)
        assert CLOCK.monotonic() - started < 1


async def test_an_existing_schema_is_copied_before_it_is_changed(path: Path) -> None:
    """The way back when a migration turns out wrong; the copy is whole and of the old version."""
    async with opened(path) as store:
        await store.outbox.append([event()], None)
        migrations = SqliteMigrations(
            store.database, clock=ManualClock(), ids=IDS, steps=(*store.migrations._steps, NEXT)
        )

        steps = await migrations.apply()
        again = await migrations.apply()

    assert ([f"{NEEDED + 1:04d}_colours"], []) == (steps, again)
    (copy,) = path.parent.glob("*.schema-*")
    assert f"store.db.schema-{NEEDED}-20260101T000000Z" == copy.name
    with closing(sqlite3.connect(copy)) as connection:
        assert [(NEEDED,)] == connection.execute("select max(version) from spoolproof_schema_version").fetchall()
        assert [(1,)] == connection.execute("select count(*) from spoolproof_outbox").fetchall()
    with closing(sqlite3.connect(path)) as connection:
        assert [("a;b",)] == connection.execute("select name from colour").fetchall()


async def test_a_first_schema_is_not_copied(path: Path) -> None:
    """There is nothing to go back to."""
    async with opened(path):
        pass

    assert [] == list(path.parent.glob("*.schema-*"))


async def test_a_step_that_fails_leaves_nothing_of_itself(path: Path) -> None:
    """The next start runs it from its beginning."""
    broken = Migration(NEEDED + 1, "broken", "create table half (name text);\ninsert into nowhere values (1);\n")
    async with opened(path) as store:
        migrations = SqliteMigrations(store.database, clock=CLOCK, ids=IDS, steps=(*store.migrations._steps, broken))

        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            await migrations.apply()

        assert NEEDED == await migrations.found()
    with closing(sqlite3.connect(path)) as connection:
        assert [] == connection.execute("select 1 from sqlite_schema where name = 'half'").fetchall()


async def test_processes_that_start_together_migrate_once(path: Path) -> None:
    """Each finds the file, new or not, in the hands of another."""
    databases = [Database(path, clock=CLOCK) for _ in range(4)]
    async with AsyncExitStack() as stack:
        for database in databases:
            stack.push_async_callback(database.stop)
            await database.start()
        all_migrations = [SqliteMigrations(database, clock=CLOCK, ids=IDS) for database in databases]

        steps = [step for migrations in all_migrations for step in await migrations.apply()]

        assert list(range(1, NEEDED + 1)) == [int(step.partition("_")[0]) for step in steps]


async def test_the_schema_can_be_made_from_its_text(path: Path, tmp_path: Path) -> None:
    """For those whose files are changed by another tool: the same schema as `apply` makes."""
    async with opened(path) as store:
        text = store.migrations.sql()
        needed = store.migrations.needed
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.executescript(text)
    async with opened(other) as store:
        assert needed == await store.migrations.found()
    schema = "select type, name, sql from sqlite_schema order by type, name"
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(other)) as two:
        assert one.execute(schema).fetchall() == two.execute(schema).fetchall()


async def test_what_the_earlier_release_left_goes_to_the_service_that_wrote_it(path: Path) -> None:
    """Its rows had no owner; they are known by their source, dead letters by their queue or their source."""
    async with _at_version(path, 2):
        with closing(sqlite3.connect(path)) as connection, connection:
            for started_at, name in enumerate(("shop", "bank")):
                meta = pack_meta(event().message).replace('"source":"s"', f'"source":"{name}"')
                connection.execute(
                    "insert into spoolproof_process (id, service, host, pid, roles, started_at, expires_at)"
                    " values (?1, ?1, 'h', 1, '[]', ?2, ?2)",
                    (name, float(started_at)),
                )
                connection.execute(
                    "insert into spoolproof_outbox (shard, message_id, destination, type, headers, body)"
                    " values (0, ?1, 'events', 't', ?2, x'')",
                    (name, meta),
                )
                for consumer in (f"{name}.orders", f"relay:{name}"):
                    connection.execute(
                        "insert into spoolproof_dead_letter (id, consumer, message_id, destination, type, headers,"
                        " body, reason, fingerprint, error_class, error, stack, attempts, first_failed_at,"
                        " last_failed_at)"
                        " values (?1, ?1, 'm', 'events', 't', ?2, x'', 'r', 'f', 'c', 'e', '', '[]', 1.0, 1.0)",
                        (consumer, meta),
                    )

    async with opened(path) as store:
        services = dict(await store.services.all())
        rows = (await store.outbox.fetch({0: 0, 1: 0}, (), 10)).rows
        letters = await store.dead_letters.search(DeadLetterFilter())

    assert {"shop": Block(0, 1), "bank": Block(1, 1)} == services
    assert [("shop", 0), ("bank", 1)] == [(row.outgoing.message.source, row.ref.shard) for row in rows]
    assert {"shop.orders": "", "relay:shop": "", "bank.orders": "bank", "relay:bank": "bank"} == {
        letter.consumer: letter.service for letter in letters
    }


@asynccontextmanager
async def _at_version(path: Path, version: int) -> AsyncIterator[None]:
    database = Database(path, clock=CLOCK)
    await database.start()
    try:
        steps = load("spoolproof.stores.sqlite")[:version]
        await SqliteMigrations(database, clock=CLOCK, ids=IDS, steps=steps).apply()
    finally:
        await database.stop()
    yield


async def test_a_dead_letter_of_the_earlier_release_is_found_by_its_bare_id(path: Path) -> None:
    """It is the same dead letter when its message fails again or succeeds, and none of another event of that id."""
    message = event().message
    other = msgspec.structs.replace(message, source="another")
    async with opened(path) as store:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "insert into spoolproof_dead_letter (id, consumer, message_id, destination, type, headers, body,"
                " reason, fingerprint, error_class, error, stack, attempts, state, first_failed_at, last_failed_at)"
                " values ('old', 'orders', ?, 'queue:orders', 't', ?, x'', 'r', 'f', 'c', 'e', '', '[]', 'replaying',"
                " 1.0, 1.0)",
                (message.id, pack_meta(message)),
            )
        await store.dead_letters.add(make_dead_letter(other))
        await store.dead_letters.add(make_dead_letter(message, error="again"))
        found = await store.dead_letters.search(DeadLetterFilter(message_id=message.id))
        async with store.transaction() as tx:
            await store.dead_letters.resolve(tx, "orders", message)
        after = await store.dead_letters.search(DeadLetterFilter(message_id=message.id))

    assert [("old", "again"), (found[1].id, "no stock")] == [(record.id, record.error) for record in found]
    assert ["resolved", "open"] == [record.state for record in after]
