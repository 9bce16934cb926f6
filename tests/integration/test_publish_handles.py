"""`publish(transaction=…)` through the user's own transaction: one fate with the business row, or a refusal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.event import listens_for
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from spoolproof.clock import SystemClock
from spoolproof.errors import (
    NotInTransaction,
    OutboxMissing,
    StoreUnavailable,
    TransactionError,
    UnsupportedTransaction,
    WrongDatabase,
)
from spoolproof.ids import Ids
from spoolproof.message import Outgoing
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.schedule import Schedule
from spoolproof.stores.postgres import PostgresStore
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.conformance._store import ready_rows
from spoolproof.testing.servers import PostgresServer
from spoolproof.testing.stores import postgres_store

pytestmark = [pytest.mark.integration, pytest.mark.servers]
AT = datetime(2060, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)


class OwnSession(AsyncSession):
    """What SQLModel and many projects do."""


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    async with postgres_store(postgres_url) as store:
        yield store


@pytest.fixture
async def engine(store: PostgresStore, postgres_url: str) -> AsyncIterator[AsyncEngine]:
    async with _engine(postgres_url) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield engine


@asynccontextmanager
async def _engine(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def _publisher(store: PostgresStore) -> Publisher:
    clock = SystemClock()
    return Publisher(store, source="shop", clock=clock, ids=Ids(clock))


# --- handles that are taken ------------------------------------------------------------------------------------------
# Each opens a transaction, inserts an order through it and yields the handle; commits at the end, or rolls back.

Opener = Callable[[AsyncEngine, str, str], AbstractAsyncContextManager[object]]


@asynccontextmanager
async def an_async_session(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(id=order))
        yield session


@asynccontextmanager
async def a_session_begun_by_its_first_statement(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    async with OwnSession(engine) as session:
        session.add(Order(id=order))
        await session.flush()
        yield session
        await session.commit()


@asynccontextmanager
async def a_session_in_a_savepoint(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    async with AsyncSession(engine) as session, session.begin(), session.begin_nested():
        session.add(Order(id=order))
        yield session


@asynccontextmanager
async def a_scoped_session(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    try:
        async with scoped.begin():
            scoped.add(Order(id=order))
            yield scoped
    finally:
        await scoped.remove()


@asynccontextmanager
async def an_async_connection(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    async with engine.begin() as connection:
        await connection.execute(text("insert into orders values (:id)"), {"id": order})
        yield connection


@asynccontextmanager
async def an_asyncpg_connection(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("insert into orders values ($1)", order)
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def a_connection_of_an_asyncpg_pool(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute("insert into orders values ($1)", order)
        yield connection


@asynccontextmanager
async def an_asyncpg_connection_with_a_codec(engine: AsyncEngine, url: str, order: str) -> AsyncIterator[object]:
    async with an_asyncpg_connection(engine, url, order) as connection:
        assert isinstance(connection, asyncpg.Connection)
        for kind in ("json", "jsonb"):  # the recipe of asyncpg's documentation
            await connection.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        yield connection


TAKEN = [
    an_async_session,
    a_session_begun_by_its_first_statement,
    a_session_in_a_savepoint,
    a_scoped_session,
    an_async_connection,
    an_asyncpg_connection,
    an_asyncpg_connection_with_a_codec,
    a_connection_of_an_asyncpg_pool,
]


async def _committed(store: PostgresStore) -> tuple[list[Outgoing], list[str]]:
    async with store.transaction() as tx:
        orders = [row["id"] for row in await tx.fetch("select id from orders order by id")]
    return [row.outgoing for row in await ready_rows(store)], orders


@pytest.mark.parametrize("opened", TAKEN)
async def test_the_event_commits_with_the_business_row(
    store: PostgresStore, engine: AsyncEngine, postgres_url: str, opened: Opener
) -> None:
    """The promise of the outbox, through the transaction the user already has; every field and byte as it was."""
    tricky = make_outgoing(
        key="ключ", headers={"h-a": "':p1 $1 ::", "h-b": 2**63 - 1, "h-c": True}, body=bytes(range(256))
    )
    several = [make_outgoing(key="k") for _ in range(3)]
    later = [replace(tricky, due=timedelta(hours=1)), replace(make_outgoing(), due=AT)]

    async with opened(engine, postgres_url, "o1") as handle:
        await _publisher(store).append_through(handle, [tricky])
        await _publisher(store).append_through(handle, several)
        await _publisher(store).append_through(handle, later)
        while_open = await _committed(store)

    events, orders = await _committed(store)
    assert ([], []) == while_open
    assert ["o1"] == orders
    assert tricky in events
    assert several == [event for event in events if event != tricky]
    first, second = await store.port(Schedule).search(None, 10)
    assert [replace(one, due=None) for one in later] == [first.outgoing, second.outgoing]
    assert timedelta(minutes=59) < first.due_at - SystemClock().now() < timedelta(minutes=61)
    assert AT == second.due_at


@pytest.mark.parametrize("opened", TAKEN)
async def test_the_event_rolls_back_with_the_business_row(
    store: PostgresStore, engine: AsyncEngine, postgres_url: str, opened: Opener
) -> None:
    """An event of an order that was never placed would be a lie."""

    async def place_and_fail() -> None:
        async with opened(engine, postgres_url, "o1") as handle:
            await _publisher(store).append_through(handle, [make_outgoing()])
            raise LookupError("no stock")

    with pytest.raises(LookupError):
        await place_and_fail()

    assert ([], []) == await _committed(store)


async def test_a_handle_is_asked_for_its_database_once(store: PostgresStore, engine: AsyncEngine) -> None:
    """P8: a publish costs one statement; the question which database this is, one round trip per connection."""
    statements: list[str] = []

    @listens_for(engine.sync_engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    async with engine.connect() as connection:
        for _ in range(3):
            async with connection.begin():
                await _publisher(store).append_through(connection, [make_outgoing()])

    asked = [statement for statement in statements if "spoolproof.meta" in statement]
    written = [statement for statement in statements if "insert into spoolproof.outbox" in statement]
    assert 2 == len(asked)
    assert 3 == len(written)


# --- handles that are refused ----------------------------------------------------------------------------------------


class Places:
    """Where refused handles come from: the store's database, another service's, and one without our schema."""

    def __init__(self, own: str, other: str, empty: str, sqlite: str) -> None:
        self.own, self.other, self.empty, self.sqlite = own, other, empty, sqlite


@pytest.fixture
async def places(
    store: PostgresStore, postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> AsyncIterator[Places]:
    name = postgres_url.rpartition("/")[2]
    other, empty = postgres.create_database(f"{name}_other"), postgres.create_database(f"{name}_empty")
    try:
        async with postgres_store(other, listen=False):
            yield Places(postgres_url, other, empty, f"sqlite+aiosqlite:///{tmp_path / 'orders.db'}")
    finally:
        postgres.drop_database(f"{name}_other")
        postgres.drop_database(f"{name}_empty")


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[AsyncSession]:
    async with _engine(url) as engine, AsyncSession(engine) as session:
        yield session


@asynccontextmanager
async def _asyncpg(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def a_thing_of_no_kind(places: Places) -> AsyncIterator[object]:
    yield object()


@asynccontextmanager
async def an_engine(places: Places) -> AsyncIterator[object]:
    async with _engine(places.own) as engine:
        yield engine


@asynccontextmanager
async def the_blocking_face_of_an_async_session(places: Places) -> AsyncIterator[object]:
    async with _session(places.own) as session, session.begin():
        await session.execute(text("select 1"))
        yield session.sync_session


@asynccontextmanager
async def an_idle_session(places: Places) -> AsyncIterator[object]:
    async with _session(places.own) as session:
        yield session


@asynccontextmanager
async def an_idle_connection(places: Places) -> AsyncIterator[object]:
    async with _engine(places.own) as engine, engine.connect() as connection:
        yield connection


@asynccontextmanager
async def a_connection_in_autocommit(places: Places) -> AsyncIterator[object]:
    async with _engine(places.own, isolation_level="AUTOCOMMIT") as engine, engine.connect() as connection:
        await connection.execute(text("select 1"))
        yield connection


@asynccontextmanager
async def an_idle_asyncpg_connection(places: Places) -> AsyncIterator[object]:
    async with _asyncpg(places.own) as connection:
        yield connection


@asynccontextmanager
async def a_session_on_sqlite(places: Places) -> AsyncIterator[object]:
    async with _engine(places.sqlite, poolclass=NullPool) as engine, AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        yield session


@asynccontextmanager
async def a_session_of_another_services_database(places: Places) -> AsyncIterator[object]:
    async with _session(places.other) as session, session.begin():
        yield session


@asynccontextmanager
async def an_asyncpg_connection_of_another_services_database(places: Places) -> AsyncIterator[object]:
    async with _asyncpg(places.other) as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def a_session_on_a_database_without_outbox(places: Places) -> AsyncIterator[object]:
    async with _session(places.empty) as session, session.begin():
        yield session
        assert 1 == await session.scalar(text("select 1"))  # the refusal has not failed their transaction


@asynccontextmanager
async def an_asyncpg_connection_on_a_database_without_outbox(places: Places) -> AsyncIterator[object]:
    async with _asyncpg(places.empty) as connection, connection.transaction():
        yield connection
        assert 1 == await connection.fetchval("select 1")


@pytest.mark.parametrize(
    ("opened", "error", "says"),
    [
        (a_thing_of_no_kind, UnsupportedTransaction, "asyncpg.Connection, sqlalchemy.ext.asyncio.AsyncSession"),
        (an_engine, UnsupportedTransaction, "AsyncEngine is not supported"),
        (the_blocking_face_of_an_async_session, UnsupportedTransaction, "sqlalchemy.ext.asyncio.AsyncSession"),
        (an_idle_session, NotInTransaction, "AsyncSession has no open transaction"),
        (an_idle_connection, NotInTransaction, "AsyncConnection has no open transaction"),
        (a_connection_in_autocommit, NotInTransaction, "AUTOCOMMIT"),
        (an_idle_asyncpg_connection, NotInTransaction, "has no open transaction"),
        (a_session_on_sqlite, WrongDatabase, "is on sqlite, the service's store is postgresql"),
        (a_session_of_another_services_database, WrongDatabase, "store_id"),
        (an_asyncpg_connection_of_another_services_database, WrongDatabase, "store_id"),
        (a_session_on_a_database_without_outbox, OutboxMissing, "spoolproof migrate"),
        (an_asyncpg_connection_on_a_database_without_outbox, OutboxMissing, "spoolproof migrate"),
    ],
)
async def test_a_handle_that_cannot_keep_the_promise_is_refused_with_the_remedy(
    store: PostgresStore,
    places: Places,
    opened: Callable[[Places], AbstractAsyncContextManager[object]],
    error: type[TransactionError],
    says: str,
) -> None:
    """Silence here is an event that commits alone, or into a database no relay reads."""
    async with opened(places) as handle:
        with pytest.raises(error) as raised:
            await _publisher(store).append_through(handle, [make_outgoing()])

    assert error is type(raised.value)
    assert says in str(raised.value)
    assert 0 == (await store.outbox.backlog()).rows


@pytest.mark.parametrize("opened", [an_async_session, an_asyncpg_connection])
async def test_an_outbox_that_was_dropped_meanwhile_is_named(
    store: PostgresStore, engine: AsyncEngine, postgres_url: str, opened: Opener
) -> None:
    """The driver's undefined-table error tells nobody what to do."""

    async def publish_twice(between: Callable[[], Awaitable[None]]) -> None:
        async with opened(engine, postgres_url, "o1") as handle:
            tx = await store.adopt(handle)
            await between()
            await store.outbox.append([make_outgoing()], tx)

    async def drop() -> None:
        async with store.transaction() as tx:
            await tx.execute("drop table spoolproof.outbox")

    with pytest.raises(OutboxMissing, match="spoolproof migrate"):
        await publish_twice(drop)


async def test_a_connection_lost_under_a_handle_is_an_outage(
    store: PostgresStore, engine: AsyncEngine, postgres_url: str
) -> None:
    """SQLAlchemy's error would be taken for the handler's own fault and cost it an attempt."""

    async def publish_after_the_cut() -> None:
        async with engine.connect() as connection:
            await connection.begin()
            handle: AsyncConnection = connection
            await _publisher(store).append_through(handle, [make_outgoing()])
            async with store.transaction() as tx:
                await tx.fetch(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and state = 'idle in transaction' and pid <> pg_backend_pid()"
                )
            await _publisher(store).append_through(handle, [make_outgoing()])

    with pytest.raises(StoreUnavailable):
        await publish_after_the_cut()
