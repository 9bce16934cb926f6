"""The user's own SQLAlchemy transaction, as a store writes through it.

One path for every driver: `sqlalchemy.text` with named parameters, which SQLAlchemy turns into the driver's style. A
session is reduced to the connection its transaction is on; the session's objects and its unit of work stay untouched.

Whether a connection leads to the store's database is asked once per driver connection and kept in
`Connection.info`, which lives and dies with that connection.

Never here: commit, rollback, close, flush; importing SQLAlchemy for a handle that is not of it.
Must change together: `SUPPORTED`, `_open`, and the table of handles in tests/integration/test_publish_handles.py.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from spoolproof import limits
from spoolproof.errors import NotInTransaction, OutboxMissing, StoreUnavailable, UnsupportedTransaction, WrongDatabase
from spoolproof.ports.transaction import Row

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, TextClause
    from sqlalchemy.orm import Session

SUPPORTED = (
    "sqlalchemy.ext.asyncio.AsyncSession",
    "sqlalchemy.ext.asyncio.AsyncConnection",
    "sqlalchemy.orm.Session",
    "sqlalchemy.Connection",
)
"""What `adopt` takes, for the error that refuses everything else. Scoped sessions count as their session."""

_KNOWN = "spoolproof.store"
_UNDEFINED_TABLE = ("42P01", "3F000")  #: PostgreSQL: undefined table, invalid schema name
_PARAMETER = re.compile(r"\$(\d+)")


class SqlAlchemyTransaction:
    """Implements `StoreTransaction` on an open SQLAlchemy transaction."""

    def __init__(self, handle: object, connection: Connection, run: Callable[..., Awaitable[Any]]) -> None:
        self._handle = handle
        self._connection = connection
        self._run = run

    @property
    def raw(self) -> object:
        return self._handle

    def is_known(self, store: str) -> bool:
        """Tell whether `mark_known` was called for this driver connection and store."""
        return store in self._connection.info.get(_KNOWN, ())

    def mark_known(self, store: str) -> None:
        """Note that this driver connection leads to the store's database."""
        self._connection.info.setdefault(_KNOWN, set()).add(store)

    async def execute(self, sql: str, *args: object) -> int:
        """Run one statement. Raises OutboxMissing for a missing table, StoreUnavailable for a lost connection, else
        SQLAlchemy's error."""
        result = await self._execute(sql, args)
        return max(0, result.rowcount)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """Run one query; errors as `execute`."""
        result = await self._execute(sql, args)
        return [dict(row) for row in result.mappings()]

    async def _execute(self, sql: str, args: Sequence[object]) -> CursorResult[Any]:
        try:
            async with asyncio.timeout(limits.STATEMENT_SECONDS):
                with _translated():
                    result: CursorResult[Any] = await self._run(_clause(sql), _values(args))
                return result
        except TimeoutError as error:
            raise StoreUnavailable(f"transaction=: no answer within {limits.STATEMENT_SECONDS:g} s") from error


def execute_blocking(connection: Connection, sql: str, args: Sequence[object]) -> CursorResult[Any]:
    """Run one statement with `$1`, `$2` … on the caller's thread; errors as `SqlAlchemyTransaction.execute`."""
    with _translated():
        return connection.execute(_clause(sql), _values(args))


@contextmanager
def _translated() -> Iterator[None]:
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailable(f"transaction=: {error.orig}") from error
        if _is_table_missing(error.orig):
            raise OutboxMissing(
                "the database of this transaction has no outbox; pass a transaction of the service's store, "
                "or run: spoolproof migrate"
            ) from error
        raise


def _values(args: Sequence[object]) -> dict[str, object]:
    return {f"p{number}": value for number, value in enumerate(args, 1)}


def is_sqlalchemys(handle: object) -> bool:
    """Tell whether an object is one of SQLAlchemy's classes, or of one made from them."""
    return any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in type(handle).__mro__)


def adopt_blocking(handle: Any, *, dialect: Literal["sqlite", "postgresql"]) -> Connection:
    """Return the connection a blocking handle's open transaction is on. Raises as `adopt`."""
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    session = handle.registry() if isinstance(handle, scoped_session) else handle
    if not isinstance(session, Session | Connection):
        raise UnsupportedTransaction(handle, SUPPORTED[2:])
    _check_begun(session)
    connection = _connection_of(session)
    if connection.dialect.is_async:
        raise UnsupportedTransaction(handle, SUPPORTED[2:])
    _check(handle, connection, dialect)
    return connection


async def adopt(handle: object, *, dialect: Literal["sqlite", "postgresql"]) -> SqlAlchemyTransaction | None:
    """Wrap an open SQLAlchemy transaction of the store's kind of database; None if `handle` is not SQLAlchemy's.

    Subclasses (SQLModel's sessions) and scoped sessions are taken. On SQLite the connection's automatic checkpoint is
    switched off; `spoolproof.sqlite.checkpoint` says why. Raises UnsupportedTransaction, NotInTransaction,
    WrongDatabase.
    """
    if not is_sqlalchemys(handle):
        return None
    adopted = await _open(handle)
    connection = adopted._connection
    _check(handle, connection, dialect)
    if dialect == "sqlite" and "spoolproof.checkpoint" not in connection.info:
        await adopted.execute("pragma wal_autocheckpoint = 0")
        connection.info["spoolproof.checkpoint"] = "off"
    return adopted


def _check(handle: object, connection: Connection, dialect: str) -> None:
    """Refuse a connection to another kind of database, or one whose statements commit by themselves."""
    found = connection.dialect.name
    if found != dialect:
        raise WrongDatabase(
            f"transaction={_kind(handle)} is on {found}, the service's store is {dialect}; pass a transaction of the "
            "store's database, or point SPOOLPROOF_STORE at yours"
        )
    if _is_autocommit(connection):
        raise NotInTransaction(
            f"transaction={_kind(handle)} is in AUTOCOMMIT: the event would commit without the business change; "
            "use an engine or connection with transactions"
        )


def _check_begun(handle: Any) -> None:
    if not handle.in_transaction():
        raise NotInTransaction(
            f"transaction={_kind(handle)} has no open transaction; publish inside its begin() block, "
            "or after its first statement"
        )


def _connection_of(handle: Session | Connection) -> Connection:
    from sqlalchemy import Connection

    with _bound_once(handle):
        return handle if isinstance(handle, Connection) else handle.connection()


@contextmanager
def _bound_once(handle: object) -> Iterator[None]:
    from sqlalchemy.exc import UnboundExecutionError

    try:
        yield
    except UnboundExecutionError as error:
        raise WrongDatabase(
            f"transaction={_kind(handle)} is bound to several databases, so which one to write to is not known; "
            "pass session.connection(bind_arguments=…) of the store's database"
        ) from error


async def _open(handle: Any) -> SqlAlchemyTransaction:
    """Find the connection the handle's transaction is on, and the way to run a statement on it."""
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(handle, async_scoped_session | scoped_session):
        return await _open(handle.registry())
    if not isinstance(handle, AsyncSession | AsyncConnection | Session | Connection):
        raise UnsupportedTransaction(handle, SUPPORTED)
    _check_begun(handle)
    if isinstance(handle, AsyncSession):
        with _bound_once(handle):
            found: AsyncConnection | Connection = await handle.connection()
    else:
        found = handle if isinstance(handle, AsyncConnection) else _connection_of(handle)
    if isinstance(found, AsyncConnection):
        connection = found.sync_connection
        assert connection is not None  # in_transaction() was true
        return SqlAlchemyTransaction(handle, connection, found.execute)
    if found.dialect.is_async:
        raise UnsupportedTransaction(handle, SUPPORTED[:2])  # the blocking face of an async session
    return SqlAlchemyTransaction(handle, found, _blocking(found))


def _blocking(connection: Connection) -> Callable[..., Awaitable[Any]]:
    # on this thread: a blocking session belongs to the thread that uses it, and its user blocks on it anyway
    async def run(clause: TextClause, values: dict[str, object]) -> CursorResult[Any]:
        return connection.execute(clause, values)

    return run


def _is_autocommit(connection: Connection) -> bool:
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        # isolation_level None with a BEGIN of one's own is SQLAlchemy's documented recipe for savepoints
        driver = getattr(driver, "_conn", driver)  # aiosqlite's connection holds sqlite3's
        return getattr(driver, "isolation_level", "") is None and not getattr(driver, "in_transaction", False)
    return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT" or bool(
        getattr(connection.connection.dbapi_connection, "autocommit", False)
    )


def _is_table_missing(error: BaseException | None) -> bool:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state in _UNDEFINED_TABLE or str(error).startswith("no such table")


@functools.lru_cache(maxsize=64)
def _clause(sql: str) -> TextClause:
    from sqlalchemy import text

    # `:name` begins a parameter of text(); what is not a cast and stands in our SQL for itself is escaped
    return text(_PARAMETER.sub(r":p\1", re.sub(r"(?<!:):(?!:)", r"\\:", sql)))


def _kind(handle: object) -> str:
    return type(handle).__qualname__
