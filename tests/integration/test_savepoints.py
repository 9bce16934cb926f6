"""Events live and die with the savepoint they were published in: our own transaction, and every handle we take."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import Transaction, unit_of_work
from spoolproof.ports.store import Store
from spoolproof.stores.memory import MemoryStore
from spoolproof.stores.sqlite import SqliteStore
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.conformance._store import ready_rows
from spoolproof.testing.stores import postgres_store

pytestmark = [pytest.mark.integration, pytest.mark.servers]

Way = Callable[[Any], AbstractAsyncContextManager[object]]


def _publisher(store: Store) -> Publisher:
    clock = SystemClock()
    return Publisher(store, source="shop", clock=clock, ids=Ids(clock))


async def _published(store: Store) -> list[object]:
    return [row.outgoing.message.headers["name"] for row in await ready_rows(store)]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        if request.param == "postgres":
            url = request.getfixturevalue("postgres_url")
            yield await stack.enter_async_context(postgres_store(url, listen=False))
            return
        own: Store = (
            MemoryStore(clock=clock, ids=Ids(clock), outbox_rows_max=100)
            if request.param == "memory"
            else SqliteStore(tmp_path / "store.db", clock=clock, ids=Ids(clock), outbox_rows_max=100)
        )
        stack.push_async_callback(own.stop)
        await own.start()
        await own.migrations.apply()
        yield own


# --- our own transaction: ways to set a savepoint ---------------------------------------------------------------------


@asynccontextmanager
async def savepoint_of_ours(tx: Transaction) -> AsyncIterator[None]:
    async with tx.savepoint():
        yield


@asynccontextmanager
async def statements(tx: Transaction) -> AsyncIterator[None]:
    await tx.execute("SAVEPOINT mine")
    try:
        yield
    except BaseException:
        await tx.execute("rollback to mine")
        raise
    await tx.execute("release mine")


@asynccontextmanager
async def queries(tx: Transaction) -> AsyncIterator[None]:
    await tx.fetch("savepoint mine")
    try:
        yield
    except BaseException:
        await tx.fetch("rollback to mine")
        raise
    await tx.fetch("release mine")


@asynccontextmanager
async def raw_transaction(tx: Any) -> AsyncIterator[None]:
    async with tx.raw.transaction():
        yield


@asynccontextmanager
async def raw_statements(tx: Any) -> AsyncIterator[None]:
    raw = tx.raw
    await raw.execute("select 1; savepoint mine")
    try:
        yield
    except BaseException:
        await raw.execute("rollback to mine")
        raise
    await raw.execute("release mine")


@asynccontextmanager
async def raw_query(tx: Any) -> AsyncIterator[None]:
    await tx.raw.fetchrow("savepoint mine")
    try:
        yield
    except BaseException:
        await tx.raw.execute("rollback to mine")
        raise
    await tx.raw.execute("release mine")


@asynccontextmanager
async def raw_work(tx: Any) -> AsyncIterator[None]:
    await tx.raw.run(lambda connection: connection.execute("savepoint mine"))
    try:
        yield
    except BaseException:
        await tx.raw.run(lambda connection: connection.execute("rollback to mine"))
        raise
    await tx.raw.run(lambda connection: connection.execute("release mine"))


WAYS = [
    ("memory", savepoint_of_ours),
    *(("sqlite", way) for way in (savepoint_of_ours, statements, queries, raw_work)),
    *(
        ("postgres", way)
        for way in (savepoint_of_ours, statements, queries, raw_transaction, raw_statements, raw_query)
    ),
]


@pytest.mark.parametrize(("store", "way"), WAYS, indirect=["store"])
async def test_what_is_published_in_a_savepoint_shares_its_fate(store: Store, way: Way) -> None:
    """S3: an event whose rows were rolled back is a lie, one whose rows are there a promise; in the order of publishes,
    nested and one after the other."""
    async with unit_of_work(store, _publisher(store)) as tx:

        async def publish(name: str) -> None:
            await tx.collect(make_outgoing(key="k", headers={"name": name}))

        await publish("before")
        for name in ("undone", "kept", "undone too"):
            try:
                async with way(tx):
                    await publish(name)
                    async with way(tx):
                        await publish(f"{name}, inside")
                    if name != "kept":
                        raise LookupError(name)
            except LookupError:
                await publish(f"after {name}")

    expected = ["before", "after undone", "kept", "kept, inside", "after undone too"]
    assert expected == await _published(store)


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres"], indirect=True)
async def test_a_savepoint_is_not_the_end_of_the_transaction(store: Store) -> None:
    """What was kept in a savepoint goes with a transaction that rolls back."""
    with pytest.raises(LookupError):
        async with unit_of_work(store, _publisher(store)) as tx:
            await tx.collect(make_outgoing(headers={"name": "before"}))
            async with tx.savepoint():
                await tx.collect(make_outgoing(headers={"name": "kept"}))
            raise LookupError

    assert [] == await _published(store)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_connection_that_served_a_transaction_has_forgotten_it(store: Store) -> None:
    """It is lent again: a later savepoint must not write what an earlier transaction collected."""
    for _ in range(2):
        async with unit_of_work(store, _publisher(store)) as tx, tx.savepoint():
            await tx.execute("select 1")

    assert [] == await _published(store)


# --- handles: each opens a transaction and yields the handle and a way to set a savepoint on it ----------------------


@asynccontextmanager
async def an_asyncpg_connection(url: str) -> AsyncIterator[tuple[Any, Way]]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection, lambda handle: handle.transaction()
    finally:
        await connection.close()


@asynccontextmanager
async def an_async_session(url: str) -> AsyncIterator[tuple[Any, Way]]:
    engine = create_async_engine(_async_url(url), poolclass=NullPool)
    async with AsyncSession(engine) as session, session.begin():
        yield session, lambda handle: handle.begin_nested()


@asynccontextmanager
async def an_async_connection(url: str) -> AsyncIterator[tuple[Any, Way]]:
    async with create_async_engine(_async_url(url), poolclass=NullPool).begin() as connection:
        yield connection, lambda handle: handle.begin_nested()


@asynccontextmanager
async def a_session(url: str) -> AsyncIterator[tuple[Any, Way]]:
    with Session(create_engine(url, poolclass=NullPool)) as session, session.begin():
        yield session, lambda handle: _blocking(handle.begin_nested())


@asynccontextmanager
async def a_connection(url: str) -> AsyncIterator[tuple[Any, Way]]:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        yield connection, lambda handle: _blocking(handle.begin_nested())


@asynccontextmanager
async def a_sqlite3_connection(url: str) -> AsyncIterator[tuple[Any, Way]]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield connection, lambda handle: _blocking(_sqlite_savepoint(handle))
        connection.execute("commit")


@contextmanager
def _sqlite_savepoint(connection: sqlite3.Connection) -> Any:
    connection.execute("savepoint mine")
    try:
        yield
    except BaseException:
        connection.execute("rollback to mine")
        raise
    connection.execute("release mine")


@asynccontextmanager
async def _blocking(manager: Any) -> AsyncIterator[None]:
    with manager:
        yield


def _async_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://").replace("sqlite:///", "sqlite+aiosqlite:///")


HANDLES = [
    *(("postgres", handle) for handle in (an_asyncpg_connection, an_async_session, an_async_connection)),
    *(
        ("sqlite", handle)
        for handle in (a_sqlite3_connection, a_session, a_connection, an_async_session, an_async_connection)
    ),
]


@pytest.mark.parametrize(("store", "opened"), HANDLES, indirect=["store"])
async def test_an_event_shares_the_fate_of_a_savepoint_of_the_users(store: Store, opened: Callable[..., Any]) -> None:
    """The same promise for whoever brings a transaction along."""
    publisher = _publisher(store)
    url = store.work._url if hasattr(store, "work") else store.name

    async with opened(url) as (handle, savepoint):
        await publisher.append_through(handle, [make_outgoing(key="k", headers={"name": "before"})])
        try:
            async with savepoint(handle):
                await publisher.append_through(handle, [make_outgoing(key="k", headers={"name": "undone"})])
                raise LookupError
        except LookupError:
            pass
        async with savepoint(handle):
            await publisher.append_through(handle, [make_outgoing(key="k", headers={"name": "kept"})])

    assert ["before", "kept"] == await _published(store)
