"""`publish_sync`: one fate with the business row through each blocking handle, without a started service."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from spoolproof import NotInTransaction, OutboxMissing, Service, UnsupportedTransaction, WrongDatabase, event
from spoolproof.clock import SystemClock
from spoolproof.errors import OutboxFull
from spoolproof.ids import Ids
from spoolproof.message import Message
from spoolproof.outbox.receipt import Place
from spoolproof.ports.schedule import Schedule
from spoolproof.settings import Settings
from spoolproof.stores.sqlite import SqliteStore
from spoolproof.testing.conformance._store import ready_rows
from spoolproof.testing.stores import postgres_store
from spoolproof.wiring import PORTS

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent
AT = SystemClock().now() + timedelta(days=30)


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    id: str


Opener = Callable[[str], AbstractContextManager[object]]
"""Opens a transaction, inserts an order through it and yields the handle; commits at the end, or rolls back."""


@contextmanager
def a_sqlite3_connection(url: str) -> Iterator[object]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.row_factory = sqlite3.Row
        with connection:
            connection.execute("insert into orders values ('o')")
            yield connection


@contextmanager
def a_session(url: str) -> Iterator[object]:
    with Session(_engine(url)) as session, session.begin():
        session.execute(text("insert into orders values ('o')"))
        yield session


@contextmanager
def a_sqlalchemy_connection(url: str) -> Iterator[object]:
    with _engine(url).begin() as connection:
        connection.execute(text("insert into orders values ('o')"))
        yield connection


@contextmanager
def a_psycopg_connection(url: str) -> Iterator[object]:
    with psycopg.connect(url) as connection:
        yield connection  # the first statement begins the transaction: it may be ours
        connection.execute("insert into orders values ('o')")


@contextmanager
def a_psycopg_transaction(url: str) -> Iterator[object]:
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        connection.execute("insert into orders values ('o')")
        yield connection


def _engine(url: str) -> Any:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)


def _service(url: str, **settings: Any) -> Service:
    return Service("shop", settings=Settings(store=url, **settings))


async def _prepare(url: str) -> None:
    async with _store(url) as store, store.transaction() as tx:
        await tx.execute("create table orders (id text)")


async def _stored(url: str) -> tuple[list[Message], list[str]]:
    async with _store(url) as store:
        await store.services.claim("shop")
        async with store.transaction() as tx:
            orders = [row["id"] for row in await tx.fetch("select id from orders")]
        return [row.outgoing.message for row in await ready_rows(store)], orders


def _store(url: str) -> Any:
    return _sqlite_store(url) if url.startswith("sqlite") else postgres_store(url)


@asynccontextmanager
async def _sqlite_store(url: str) -> AsyncIterator[SqliteStore]:
    clock = SystemClock()
    path = Path(url.removeprefix("sqlite:///"))
    store = SqliteStore(path, clock=clock, ids=Ids(clock), outbox_rows_max=1000, ports=PORTS)
    await store.start()
    try:
        await store.migrations.apply()
        yield store
    finally:
        await store.stop()


@pytest.fixture
async def sqlite_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    await _prepare(url)
    return url


@pytest.fixture
async def pg_url(postgres_url: str) -> str:
    await _prepare(postgres_url)
    return postgres_url


ON_SQLITE = [a_sqlite3_connection, a_session, a_sqlalchemy_connection]
ON_POSTGRES = [a_psycopg_connection, a_psycopg_transaction, a_session, a_sqlalchemy_connection]


@pytest.mark.parametrize("opened", ON_SQLITE, ids=lambda opened: opened.__name__)
async def test_on_sqlite_the_event_shares_the_fate_of_the_row(sqlite_url: str, opened: Opener) -> None:
    """A2: committed together or not at all, from a thread without an event loop, before the service ever ran."""
    await _shares_the_fate(sqlite_url, opened)


@pytest.mark.servers
@pytest.mark.parametrize("opened", ON_POSTGRES, ids=lambda opened: opened.__name__)
async def test_on_postgresql_the_event_shares_the_fate_of_the_row(pg_url: str, opened: Opener) -> None:
    await _shares_the_fate(pg_url, opened)


async def _shares_the_fate(url: str, opened: Opener) -> None:
    service = _service(url)

    def work() -> None:
        with pytest.raises(ZeroDivisionError), opened(url) as handle:
            service.publish_sync(OrderPlaced("undone"), transaction=handle)
            raise ZeroDivisionError
        with opened(url) as handle:
            receipt = service.publish_sync(OrderPlaced("o"), key="o'%s$1", headers={"h": 1}, transaction=handle)
            assert Place.TRANSACTION == receipt.place
            service.publish_sync(OrderPlaced("also"), id="given", transaction=handle)
            later = service.publish_sync(OrderPlaced("later"), key="k'%s", delay=3600, transaction=handle)
            assert Place.SCHEDULED == later.place
            service.publish_sync(OrderPlaced("at"), at=AT, transaction=handle)

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(thread.join)

    messages, orders = await _stored(url)
    assert ["o"] == orders
    assert [b'{"id":"o"}', b'{"id":"also"}'] == [message.body for message in messages]
    async with _store(url) as store:
        first, second = await store.port(Schedule).search("shop", 10)
    assert (b'{"id":"later"}', "k'%s") == (first.outgoing.message.body, first.outgoing.message.key)
    assert (b'{"id":"at"}', AT) == (second.outgoing.message.body, second.due_at)
    assert 3500 < (first.due_at - SystemClock().now()).total_seconds() < 3700
    assert ("o'%s$1", {"h": 1}, "shop", "given") == (
        messages[0].key,
        messages[0].headers,
        messages[0].source,
        messages[1].id,
    )


@pytest.mark.servers
async def test_a_claim_that_was_rolled_back_is_made_again(pg_url: str) -> None:
    """What the first transaction of a service's life claims is gone with it, and may be another's by then."""
    service = _service(pg_url)
    with pytest.raises(ZeroDivisionError), a_psycopg_connection(pg_url) as handle:
        service.publish_sync(OrderPlaced("undone"), transaction=handle)
        raise ZeroDivisionError
    async with postgres_store(pg_url) as store:
        other = await store.services.claim("another")

    with a_psycopg_connection(pg_url) as handle:
        service.publish_sync(OrderPlaced("o"), transaction=handle)

    async with postgres_store(pg_url) as store:
        own = await store.services.claim("shop")
        assert own.first != other.first
        assert [b'{"id":"o"}'] == [row.outgoing.message.body for row in await ready_rows(store)]


async def test_a_running_service_ships_it_at_once(sqlite_url: str) -> None:
    """Its relay is told, though the commit is not ours to see."""
    service = Service("shop", settings=Settings(store=sqlite_url, broker="memory://"))
    seen = asyncio.Event()

    @service.on(OrderPlaced)
    async def look(order: OrderPlaced) -> None:
        seen.set()

    async with service.lifespan(), asyncio.timeout(10):
        await asyncio.to_thread(_publish_through_sqlite3, service, sqlite_url)
        await seen.wait()


def _publish_through_sqlite3(service: Service, url: str) -> None:
    with a_sqlite3_connection(url) as handle:
        service.publish_sync(OrderPlaced("o"), transaction=handle)


async def test_in_a_plain_handler_it_joins_the_attempt(sqlite_url: str) -> None:
    """As publish does in an async one: a failed attempt publishes nothing."""
    service = Service("shop")
    attempts: list[int] = []

    @event("payment.taken")
    class PaymentTaken(msgspec.Struct):
        n: int

    @service.on(OrderPlaced)
    def take(order: OrderPlaced) -> None:
        attempts.append(1)
        service.publish_sync(PaymentTaken(len(attempts)))
        if len(attempts) == 1:
            raise RuntimeError

    async with service.test() as app:
        await app.publish(OrderPlaced("o"))
        await app.settled()

        assert [PaymentTaken(2)] == app.published(PaymentTaken)


async def test_what_cannot_be_written_through_is_refused_with_what_to_do(sqlite_url: str, tmp_path: Path) -> None:
    """At the publish, and nothing is written."""
    service = _service(sqlite_url)
    file = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as connection, pytest.raises(NotInTransaction, match="BEGIN IMMEDIATE"):
        service.publish_sync(OrderPlaced("o"), transaction=connection)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("create table t (a)")
        connection.execute("insert into t values (1)")
        with pytest.raises(WrongDatabase, match=r"other\.db"):
            service.publish_sync(OrderPlaced("o"), transaction=connection)
    with Session(_engine(sqlite_url)) as session, pytest.raises(NotInTransaction, match=r"begin\(\) block"):
        service.publish_sync(OrderPlaced("o"), transaction=session)
    with pytest.raises(NotInTransaction, match=r"await service\.publish"):
        service.publish_sync(OrderPlaced("o"))
    with pytest.raises(UnsupportedTransaction, match=r"django\.db\.connection"):
        service.publish_sync(OrderPlaced("o"), transaction=object())
    engine = create_async_engine(sqlite_url.replace("sqlite://", "sqlite+aiosqlite://"), poolclass=NullPool)
    async with engine.begin() as async_connection:
        with pytest.raises(UnsupportedTransaction, match=r"sqlalchemy\.orm\.Session"):
            service.publish_sync(OrderPlaced("o"), transaction=async_connection)


async def test_a_database_without_an_outbox_is_refused(tmp_path: Path) -> None:
    """With the command that makes one."""
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection, connection:
        connection.execute("create table orders (id text)")
    with pytest.raises(OutboxMissing, match="spoolproof migrate"), a_sqlite3_connection(url) as handle:
        _service(url).publish_sync(OrderPlaced("o"), transaction=handle)


@pytest.mark.servers
async def test_on_postgresql_another_database_and_an_empty_one_are_refused(pg_url: str, tmp_path: Path) -> None:
    """Without a failed statement, which would end the user's transaction."""
    elsewhere = _service(pg_url.rpartition("/")[0] + "/elsewhere")
    with a_psycopg_transaction(pg_url) as handle, pytest.raises(WrongDatabase, match="elsewhere"):
        elsewhere.publish_sync(OrderPlaced("o"), transaction=handle)
    with a_psycopg_transaction(pg_url) as handle, pytest.raises(WrongDatabase, match="store is sqlite"):
        _service(f"sqlite:///{tmp_path}/s.db").publish_sync(OrderPlaced("o"), transaction=handle)
    with psycopg.connect(pg_url, autocommit=True) as connection:
        with pytest.raises(NotInTransaction, match=r"connection\.transaction\(\)"):
            _service(pg_url).publish_sync(OrderPlaced("o"), transaction=connection)
        connection.execute("drop schema spoolproof cascade")
    with a_psycopg_transaction(pg_url) as handle, pytest.raises(OutboxMissing, match="spoolproof migrate"):
        _service(pg_url).publish_sync(OrderPlaced("o"), transaction=handle)

    with psycopg.connect(pg_url) as connection:
        assert 3 == connection.execute("select count(*) from orders").fetchone()[0]  # type: ignore[index]


async def test_a_full_outbox_is_said_before_anything_is_written(sqlite_url: str) -> None:
    """Nothing accepted is dropped, so there is a bound on what is accepted."""
    await _is_refused_when_full(sqlite_url)


@pytest.mark.servers
async def test_a_full_outbox_on_postgresql(pg_url: str) -> None:
    await _is_refused_when_full(pg_url)


async def _is_refused_when_full(url: str) -> None:
    service = _service(url, outbox_rows_max=2)
    with a_session(url) as handle:
        for n in range(2):
            service.publish_sync(OrderPlaced(str(n)), transaction=handle)
        with pytest.raises(OutboxFull, match="2 of at most 2"):
            service.publish_sync(OrderPlaced("too many"), transaction=handle)

    assert 2 == len((await _stored(url))[0])


@pytest.mark.parametrize("on", ["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def test_a_django_project_publishes_in_its_transactions(
    on: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Views that know no event loop, a worker that runs the service, an ORM in its handler."""
    url = f"sqlite:///{tmp_path / 'shop.db'}" if on == "sqlite" else request.getfixturevalue("postgres_url")

    _run(["-m", "spoolproof", "migrate"], url, tmp_path)
    web = _run(["-m", "django_shop.web"], url, tmp_path)
    worker = _run(["-m", "django_shop.worker"], url, tmp_path)

    placed, refused, orders = web[:3], web[3], web[4]
    assert ["placed", "failed", "partly"] == placed
    assert "transaction.atomic()" in refused
    assert "['o-1', 'o-3']" == orders
    assert ["['o-1', 'o-3']"] == worker


def _run(command: list[str], url: str, folder: Path) -> list[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    environment = {
        **own,
        "SPOOLPROOF_STORE": url,
        "DJANGO_SETTINGS_MODULE": "django_shop.settings",
        "PYTHONPATH": str(HERE),
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=50
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines()
