"""SQLAlchemy handles on SQLite, blocking and async: taken or refused, on real files. PostgreSQL: tests/integration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from spoolproof.errors import NotInTransaction, OutboxMissing, TransactionError, UnsupportedTransaction, WrongDatabase
from spoolproof.stores.sqlalchemy_handles import adopt

SCHEMA = "create table event (name text primary key, number integer, note text)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "orders.db"
    with _engine(file).begin() as connection:
        connection.execute(text(SCHEMA))
    return file


def _engine(file: Path, **options: Any) -> Engine:
    return create_engine(f"sqlite:///{file}", poolclass=NullPool, **options)


def _names(file: Path) -> list[str]:
    with _engine(file).connect() as connection:
        return list(connection.scalars(text("select name from event order by name")))


def _session_of(handle: Any) -> object:
    return handle() if isinstance(handle, scoped_session) else handle


Opener = Callable[[Path], AbstractAsyncContextManager[object]]


@asynccontextmanager
async def a_connection(file: Path) -> AsyncIterator[object]:
    with _engine(file).begin() as connection:
        yield connection


@asynccontextmanager
async def a_session(file: Path) -> AsyncIterator[object]:
    with Session(_engine(file)) as session, session.begin():
        yield session


@asynccontextmanager
async def a_scoped_session(file: Path) -> AsyncIterator[object]:
    scoped = scoped_session(sessionmaker(_engine(file)))
    try:
        with scoped.begin():
            yield scoped
    finally:
        scoped.remove()


@asynccontextmanager
async def a_connection_with_its_own_begin(file: Path) -> AsyncIterator[object]:
    """SQLAlchemy's documented recipe for savepoints on SQLite: the driver in autocommit, BEGIN by an event."""
    engine = _engine(file)
    event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.begin() as connection:
        yield connection


@asynccontextmanager
async def an_async_connection(file: Path) -> AsyncIterator[object]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", poolclass=NullPool)
    async with engine.begin() as connection:
        yield connection


@asynccontextmanager
async def an_async_session(file: Path) -> AsyncIterator[object]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", poolclass=NullPool)
    async with AsyncSession(engine) as session, session.begin():
        yield session


TAKEN = [
    a_connection,
    a_session,
    a_scoped_session,
    a_connection_with_its_own_begin,
    an_async_connection,
    an_async_session,
]


@pytest.mark.parametrize("opened", TAKEN)
async def test_statements_run_in_the_users_transaction_and_commit_with_it(file: Path, opened: Opener) -> None:
    """`$1` in any order and more than once; colons and dollars in values are values."""
    async with opened(file) as handle:
        tx = await adopt(handle, dialect="sqlite")
        assert tx is not None
        changed = await tx.execute("insert into event (number, name, note) values ($2, $1, $1)", ":a $1", 7)
        rows = await tx.fetch("select name, number, note, ':p1' as kept from event where number = $1", 7)
        while_open = _names(file)
        is_theirs = tx.raw is _session_of(handle)

    assert is_theirs
    assert 1 == changed
    assert [{"name": ":a $1", "number": 7, "note": ":a $1", "kept": ":p1"}] == [dict(row) for row in rows]
    assert [] == while_open
    assert [":a $1"] == _names(file)


@pytest.mark.parametrize("opened", TAKEN)
async def test_statements_roll_back_with_the_users_transaction(file: Path, opened: Opener) -> None:
    """Nothing is ever committed by us."""

    async def write_and_fail() -> None:
        async with opened(file) as handle:
            tx = await adopt(handle, dialect="sqlite")
            assert tx is not None
            await tx.execute("insert into event (name) values ($1)", "undone")
            raise LookupError("no stock")

    with pytest.raises(LookupError):
        await write_and_fail()

    assert [] == _names(file)


@pytest.mark.parametrize("opened", TAKEN)
async def test_automatic_checkpoints_are_off_on_a_handed_connection(file: Path, opened: Opener) -> None:
    """L21: a checkpoint beside another process's commit can corrupt a WAL on affected versions of SQLite."""
    async with opened(file) as handle:
        tx = await adopt(handle, dialect="sqlite")
        assert tx is not None
        (row,) = await tx.fetch("pragma wal_autocheckpoint")

    assert 0 == next(iter(row.values()))


async def test_what_is_known_of_a_connection_lives_as_long_as_it(file: Path) -> None:
    """The question which database it is costs a round trip; a new connection must be asked again."""
    answers = []
    for engine in (_engine(file), create_engine(f"sqlite:///{file}")):
        for _ in range(2):
            with engine.begin() as connection:
                tx = await adopt(connection, dialect="sqlite")
                assert tx is not None
                answers.append((tx.is_known("a"), tx.is_known("b")))
                tx.mark_known("a")
        engine.dispose()

    assert [(False, False), (False, False), (False, False), (True, False)] == answers


# --- refused ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def an_idle_session(file: Path) -> AsyncIterator[object]:
    with Session(_engine(file)) as session:
        yield session


@asynccontextmanager
async def an_idle_connection(file: Path) -> AsyncIterator[object]:
    with _engine(file).connect() as connection:
        yield connection


@asynccontextmanager
async def a_connection_in_autocommit(file: Path) -> AsyncIterator[object]:
    with _engine(file, isolation_level="AUTOCOMMIT").begin() as connection:
        yield connection


@asynccontextmanager
async def an_async_connection_in_autocommit(file: Path) -> AsyncIterator[object]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.begin() as connection:
        yield connection


@asynccontextmanager
async def an_engine(file: Path) -> AsyncIterator[object]:
    yield _engine(file)


@asynccontextmanager
async def a_session_of_several_databases(file: Path) -> AsyncIterator[object]:
    class Base(DeclarativeBase):
        pass

    with Session(binds={Base: _engine(file)}) as session, session.begin():
        yield session


@pytest.mark.parametrize(
    ("opened", "dialect", "error", "says"),
    [
        (an_idle_session, "sqlite", NotInTransaction, "Session has no open transaction"),
        (an_idle_connection, "sqlite", NotInTransaction, "Connection has no open transaction"),
        (a_connection_in_autocommit, "sqlite", NotInTransaction, "AUTOCOMMIT"),
        (an_async_connection_in_autocommit, "sqlite", NotInTransaction, "AUTOCOMMIT"),
        (an_engine, "sqlite", UnsupportedTransaction, "Engine is not supported"),
        (a_session, "postgresql", WrongDatabase, "Session is on sqlite, the service's store is postgresql"),
        (an_async_session, "postgresql", WrongDatabase, "AsyncSession is on sqlite"),
        (a_session_of_several_databases, "sqlite", WrongDatabase, "bind_arguments"),
    ],
)
async def test_a_handle_that_cannot_keep_the_promise_is_refused(
    file: Path, opened: Opener, dialect: Any, error: type[TransactionError], says: str
) -> None:
    """Each message names what was passed and what to do."""
    async with opened(file) as handle:
        with pytest.raises(error) as raised:
            await adopt(handle, dialect=dialect)

    assert error is type(raised.value)
    assert says in str(raised.value)


@pytest.mark.parametrize("opened", [a_connection, an_async_session])
async def test_a_missing_table_gets_the_migrate_command(file: Path, opened: Opener) -> None:
    """The driver's error tells nobody what to do."""
    async with opened(file) as handle:
        tx = await adopt(handle, dialect="sqlite")
        assert tx is not None
        with pytest.raises(OutboxMissing, match="spoolproof migrate"):
            await tx.execute("insert into spoolproof_outbox (id) values ($1)", 1)


async def test_other_errors_of_a_statement_pass_as_they_are(file: Path) -> None:
    """Wrapped, nobody could catch them."""
    from sqlalchemy.exc import IntegrityError

    async with a_connection(file) as handle:
        tx = await adopt(handle, dialect="sqlite")
        assert tx is not None
        await tx.execute("insert into event (name) values ($1)", "a")
        with pytest.raises(IntegrityError):
            await tx.execute("insert into event (name) values ($1)", "a")


async def test_what_is_not_sqlalchemys_is_left_to_others() -> None:
    """None, so that the store may look for a handle of another kind."""
    assert await adopt(object(), dialect="sqlite") is None


def test_sqlalchemy_is_not_imported_for_a_handle_that_is_not_of_it() -> None:
    """It is an extra; a service without it must start, and publish."""
    code = (
        "import asyncio, sys; from spoolproof.stores.sqlalchemy_handles import adopt;"
        "asyncio.run(adopt(object(), dialect='sqlite')); assert 'sqlalchemy' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
