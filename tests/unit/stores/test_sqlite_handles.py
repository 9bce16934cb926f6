"""The user's own sqlite3 connection: proved to be on the store's file, and never waited for inside SQLite."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spoolproof.clock import SystemClock
from spoolproof.errors import NotInTransaction, OutboxMissing, StoreUnavailable, WrongDatabase
from spoolproof.ids import Ids
from spoolproof.message import Message, Outgoing
from spoolproof.stores.sqlite import SqliteStore, handles


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    clock = SystemClock()
    store = SqliteStore(path, clock=clock, ids=Ids(clock), outbox_rows_max=1000)
    await store.start()
    await store.migrations.apply()
    yield store
    await store.stop()


@pytest.fixture
def user(path: Path, store: SqliteStore) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def event(id: str = "m1") -> Outgoing:
    return Outgoing(message=Message(id=id, type="t", source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=b"{}"))


async def publish(store: SqliteStore, handle: object) -> None:
    await store.outbox.append([event()], await store.adopt(handle))


async def rows(store: SqliteStore) -> int:
    return (await store.outbox.backlog()).rows


async def test_python_s_own_implicit_transaction_will_do(store: SqliteStore, user: sqlite3.Connection) -> None:
    """The usual style: a business statement opens it, `commit` ends it."""
    user.execute("create table shop_order (id text)")
    user.execute("insert into shop_order values ('o1')")

    await publish(store, user)
    while_open = await rows(store)
    user.commit()

    assert (0, 1) == (while_open, await rows(store))


async def test_a_connection_without_transaction_is_refused(store: SqliteStore, user: sqlite3.Connection) -> None:
    """The event would commit alone."""
    with pytest.raises(NotInTransaction, match="BEGIN IMMEDIATE"):
        await publish(store, user)


async def test_a_copy_of_the_stores_file_is_another_database(
    store: SqliteStore, path: Path, user: sqlite3.Connection, tmp_path: Path
) -> None:
    """A backup opened by mistake looks the same inside; its events would never be sent."""
    copy = tmp_path / "copy.db"
    user.execute("vacuum into ?", (str(copy),))

    with closing(sqlite3.connect(copy)) as other:
        other.execute("begin")
        with pytest.raises(WrongDatabase, match=r"copy\.db.*store\.db"):
            await publish(store, other)


async def test_another_way_to_the_same_file_is_the_same_database(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    """A symbolic link, a relative path: the file decides."""
    (tmp_path / "link").symlink_to(tmp_path)

    with closing(sqlite3.connect(tmp_path / "link" / path.name)) as other:
        other.execute("begin immediate")
        await publish(store, other)
        other.commit()

    assert 1 == await rows(store)


@pytest.mark.parametrize("where", [":memory:", "other.db"])
async def test_a_database_without_outbox_is_told_how_to_get_one(store: SqliteStore, tmp_path: Path, where: str) -> None:
    """The first thing that goes wrong on a new machine."""
    with closing(sqlite3.connect(where if where == ":memory:" else tmp_path / where)) as other:
        other.execute("begin")
        with pytest.raises(OutboxMissing, match="spoolproof migrate"):
            await publish(store, other)


async def test_the_stores_own_file_without_its_tables_is_told_how_to_get_them(tmp_path: Path) -> None:
    """It was started and never migrated."""
    clock = SystemClock()
    store = SqliteStore(tmp_path / "bare.db", clock=clock, ids=Ids(clock), outbox_rows_max=1000)
    await store.start()

    with closing(sqlite3.connect(tmp_path / "bare.db")) as connection:
        connection.execute("begin")
        tx = await store.adopt(connection)
        with pytest.raises(OutboxMissing, match="spoolproof migrate"):
            await store.inbox.record(tx, "orders", "m1")
    await store.stop()


async def test_the_users_connection_keeps_its_ways(store: SqliteStore, user: sqlite3.Connection) -> None:
    """Its rows, its text, its busy timeout; only its automatic checkpoint is off."""

    def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
        return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}

    user.row_factory, user.text_factory = as_dict, bytes
    user.execute("pragma busy_timeout = 1234")
    user.execute("begin immediate")

    await publish(store, user)
    user.commit()

    assert {"timeout": 1234} == user.execute("pragma busy_timeout").fetchone()
    assert {"wal_autocheckpoint": 0} == user.execute("pragma wal_autocheckpoint").fetchone()
    assert 1 == await rows(store)


async def test_a_connection_is_known_again_until_it_is_closed(store: SqliteStore, path: Path) -> None:
    """The check costs more than the INSERT. But what Python makes next may have the same `id`, on another file."""
    statements: list[str] = []
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("begin immediate")
    await publish(store, connection)
    connection.set_trace_callback(statements.append)

    await store.outbox.append([event("m2")], await store.adopt(connection))
    connection.commit()
    former = id(connection)
    is_known = (former, path) in handles._known
    connection.close()
    is_known_when_closed = (former, path) in handles._known

    assert [] == [sql for sql in statements if "database_list" in sql or "autocheckpoint" in sql]
    assert (True, False) == (is_known, is_known_when_closed)
    assert 2 == await rows(store)


async def test_a_known_connection_is_not_kept_alive(store: SqliteStore, path: Path) -> None:
    """Whoever drops a connection without closing it counts on Python to close it and its files."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("begin immediate")
    await publish(store, connection)
    connection.commit()
    former = id(connection)

    del connection
    gc.collect()  # a connection and its cache of statements know each other

    assert (former, path) not in handles._known


async def test_a_publish_in_the_middle_of_the_users_select_is_taken(
    store: SqliteStore, path: Path, tmp_path: Path, user: sqlite3.Connection
) -> None:
    """SQLite refuses to replace a function then, which is what two stores of one file do to a connection's mark."""
    clock = SystemClock()
    (tmp_path / "link").symlink_to(tmp_path)
    again = SqliteStore(tmp_path / "link" / path.name, clock=clock, ids=Ids(clock), outbox_rows_max=1000)
    await again.start()
    user.execute("begin immediate")
    await publish(store, user)
    cursor = user.execute("select 1 union select 2")
    assert (1,) == cursor.fetchone()

    await again.outbox.append([event("m2")], await again.adopt(user))
    others = cursor.fetchall()
    user.commit()
    await again.stop()

    assert [(2,)] == others
    assert 2 == await rows(store)


async def test_it_waits_for_our_own_writer_without_stopping_the_loop(
    store: SqliteStore, user: sqlite3.Connection
) -> None:
    """Our transaction needs the loop to end. Waiting for it inside SQLite, on the loop, would stop both for good."""
    user.execute("begin")  # deferred: the write lock is only wanted at our INSERT
    may_end = asyncio.Event()

    async def hold() -> None:
        async with store.transaction() as tx:
            await store.inbox.record(tx, "orders", "m0")
            holds.set()
            await may_end.wait()

    holds = asyncio.Event()
    holding = asyncio.ensure_future(hold())
    await holds.wait()
    publishing = asyncio.ensure_future(publish(store, user))
    await asyncio.sleep(0.05)
    waits = not publishing.done()
    may_end.set()

    async with asyncio.timeout(3):
        await holding
        await publishing
    user.commit()

    assert waits
    assert 1 == await rows(store)


async def test_a_transaction_that_read_before_others_wrote_is_told_what_to_do(
    store: SqliteStore, user: sqlite3.Connection
) -> None:
    """SQLite will never let it write; waiting would only take time."""
    user.execute("begin")
    user.execute("select count(*) from spoolproof_outbox").fetchone()
    await store.outbox.append([event("other")], None)

    with pytest.raises(StoreUnavailable, match="BEGIN IMMEDIATE"):
        await publish(store, user)
