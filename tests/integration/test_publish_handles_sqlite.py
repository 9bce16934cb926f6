"""`publish(transaction=…)` through the user's own transaction on an SQLite store; its sibling has PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from spoolproof.clock import SystemClock
from spoolproof.errors import NotInTransaction, OutboxMissing, TransactionError, UnsupportedTransaction, WrongDatabase
from spoolproof.ids import Ids
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.schedule import Schedule
from spoolproof.stores.sqlite import SqliteStore
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.conformance._store import ready_rows
from spoolproof.wiring import PORTS

pytestmark = pytest.mark.integration
AT = datetime(2060, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    async with _store(file) as store:
        Base.metadata.create_all(_engine(file))
        yield store


@asynccontextmanager
async def _store(file: Path) -> AsyncIterator[SqliteStore]:
    clock = SystemClock()
    store = SqliteStore(file, clock=clock, ids=Ids(clock), outbox_rows_max=1000, ports=PORTS)
    await store.start()
    try:
        await store.migrations.apply()
        yield store
    finally:
        await store.stop()


def _engine(file: Path) -> Engine:
    return create_engine(f"sqlite:///{file}", poolclass=NullPool)


def _async_engine(file: Path) -> AsyncEngine:
    return create_async_engine(f"sqlite+aiosqlite:///{file}", poolclass=NullPool)


def _publisher(store: SqliteStore) -> Publisher:
    clock = SystemClock()
    return Publisher(store, source="shop", clock=clock, ids=Ids(clock))


def _orders(file: Path) -> list[str]:
    with Session(_engine(file)) as session:
        return list(session.scalars(select(Order.id)))


Opener = Callable[[Path], AbstractAsyncContextManager[object]]


@asynccontextmanager
async def a_session(file: Path) -> AsyncIterator[object]:
    with Session(_engine(file)) as session, session.begin():
        session.add(Order(id="o1"))
        yield session


@asynccontextmanager
async def a_connection(file: Path) -> AsyncIterator[object]:
    with _engine(file).begin() as connection:
        connection.execute(Order.__table__.insert().values(id="o1"))
        yield connection


@asynccontextmanager
async def an_async_session(file: Path) -> AsyncIterator[object]:
    async with AsyncSession(_async_engine(file)) as session, session.begin():
        session.add(Order(id="o1"))
        yield session


@asynccontextmanager
async def an_async_connection(file: Path) -> AsyncIterator[object]:
    async with _async_engine(file).begin() as connection:
        await connection.execute(Order.__table__.insert().values(id="o1"))
        yield connection


@asynccontextmanager
async def a_sqlite3_connection(file: Path) -> AsyncIterator[object]:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("insert into orders values ('o1')")
        yield connection


TAKEN = [a_session, a_connection, an_async_session, an_async_connection, a_sqlite3_connection]


@pytest.mark.parametrize("opened", TAKEN)
async def test_the_event_commits_with_the_business_row(store: SqliteStore, file: Path, opened: Opener) -> None:
    """The promise of the outbox, through the transaction the user already has; every field and byte as it was."""
    sent = [
        make_outgoing(key="ключ", headers={"h-a": "':p1 $1", "h-b": 2**63 - 1, "h-c": True}, body=bytes(range(256))),
        make_outgoing(key="k"),
    ]
    later = [replace(sent[0], due=timedelta(hours=1)), replace(make_outgoing(), due=AT)]

    async with opened(file) as handle:
        await _publisher(store).append_through(handle, sent)
        await _publisher(store).append_through(handle, later)
        while_open = (_orders(file), await ready_rows(store))

    assert ([], []) == while_open
    assert ["o1"] == _orders(file)
    assert sent == [row.outgoing for row in await ready_rows(store)]
    first, second = await store.port(Schedule).search(None, 10)
    assert [replace(one, due=None) for one in later] == [first.outgoing, second.outgoing]
    assert timedelta(minutes=59) < first.due_at - SystemClock().now() < timedelta(minutes=61)
    assert AT == second.due_at


@pytest.mark.parametrize("opened", TAKEN)
async def test_the_event_rolls_back_with_the_business_row(store: SqliteStore, file: Path, opened: Opener) -> None:
    """An event of an order that was never placed would be a lie."""

    async def place_and_fail() -> None:
        async with opened(file) as handle:
            await _publisher(store).append_through(handle, [make_outgoing()])
            raise LookupError("no stock")

    with pytest.raises(LookupError):
        await place_and_fail()

    assert ([], []) == (_orders(file), await ready_rows(store))


# --- refused: `file` is the store's, beside it lie another store and a database without our tables ------------------


@asynccontextmanager
async def a_thing_of_no_kind(file: Path) -> AsyncIterator[object]:
    yield object()


@asynccontextmanager
async def an_idle_session(file: Path) -> AsyncIterator[object]:
    with Session(_engine(file)) as session:
        yield session


@asynccontextmanager
async def an_idle_sqlite3_connection(file: Path) -> AsyncIterator[object]:
    with closing(sqlite3.connect(file)) as connection:
        yield connection


@asynccontextmanager
async def a_session_of_another_store(file: Path) -> AsyncIterator[object]:
    other = file.with_name("other.db")
    async with _store(other), AsyncSession(_async_engine(other)) as session, session.begin():
        yield session


@asynccontextmanager
async def a_session_on_a_database_without_outbox(file: Path) -> AsyncIterator[object]:
    with Session(_engine(file.with_name("empty.db"))) as session, session.begin():
        yield session


@pytest.mark.parametrize(
    ("opened", "error", "says"),
    [
        (a_thing_of_no_kind, UnsupportedTransaction, "sqlite3.Connection, sqlalchemy.ext.asyncio.AsyncSession"),
        (an_idle_session, NotInTransaction, "Session has no open transaction"),
        (an_idle_sqlite3_connection, NotInTransaction, "BEGIN IMMEDIATE"),
        (a_session_of_another_store, WrongDatabase, "other.db"),
        (a_session_on_a_database_without_outbox, OutboxMissing, "spoolproof migrate"),
    ],
)
async def test_a_handle_that_cannot_keep_the_promise_is_refused_with_the_remedy(
    store: SqliteStore, file: Path, opened: Opener, error: type[TransactionError], says: str
) -> None:
    """Silence here is an event that commits alone, or into a database no relay reads."""
    async with opened(file) as handle:
        with pytest.raises(error) as raised:
            await _publisher(store).append_through(handle, [make_outgoing()])

    assert error is type(raised.value)
    assert says in str(raised.value)
    assert 0 == (await store.outbox.backlog()).rows
