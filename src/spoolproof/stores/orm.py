"""The session of SQLAlchemy that a handler may ask for: on the handler's own transaction, whatever it does.

The transaction is the store's, on the store's connection. An engine made for it alone is given that connection by a
creator, and cannot close, commit or roll it back: what the session begins and commits are savepoints in it. So its rows
commit with the inbox row and the handler's events, or with nothing.

Must change together: the versions of SQLAlchemy this is tried with, and what its dialects ask of a connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from spoolproof.errors import MissingExtra

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

_lent: ContextVar[object] = ContextVar("spoolproof.orm")


@asynccontextmanager
async def session_on(store: str, url: str, kind: type[T], connection: object) -> AsyncIterator[T]:
    """Give a session of this class on a driver's connection that is in a transaction; flushed at the end of the block.

    store: its name; an engine learns once what its server can do. url: of the dialect. connection: as that dialect's
    driver has it, with a `close` that does nothing.
    """
    engine = _engine(url, store)
    token = _lent.set(connection)
    try:
        outer = await engine.connect()
    finally:
        _lent.reset(token)
    try:
        await outer.begin()
        options: dict[str, Any] = {"expire_on_commit": False, "join_transaction_mode": "create_savepoint"}
        made: Any = kind
        async with made(bind=outer, **options) as session:
            yield session
            await session.commit()
        if engine.dialect.driver == "asyncpg":
            await outer.commit()  # releases the savepoint that its `begin` has set; on SQLite it does nothing
    finally:
        await outer.close()


@lru_cache(maxsize=16)
def _engine(url: str, store: str) -> AsyncEngine:
    try:
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool
    except ImportError as error:
        raise MissingExtra("sqlalchemy", "sqlalchemy") from error

    async def creator(*args: object, **options: object) -> object:
        return _lent.get()

    # connections of ours read JSON by themselves
    engine = create_async_engine(url, poolclass=NullPool, async_creator=creator, json_deserializer=lambda value: value)
    if engine.dialect.driver == "asyncpg":
        dialect: Any = engine.dialect
        dialect.setup_asyncpg_json_codec = dialect.setup_asyncpg_jsonb_codec = _nothing
    return engine


async def _nothing(*args: object) -> None:
    """In the place of what would change the connection for those who have it next."""


class Kept:
    """A connection of asyncpg's that its borrower cannot close."""

    def __init__(self, connection: object) -> None:
        self._inner = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def close(self, *args: object, **options: object) -> None:
        """It goes back to the pool when its transaction has ended."""

    def terminate(self) -> None:
        """The same."""


class AioConnection:
    """As `aiosqlite.Connection`, as far as SQLAlchemy's dialect asks, on a transaction of ours."""

    isolation_level = ""
    _connection = True  #: it is open

    def __init__(self, run: Callable[[Callable[[sqlite3.Connection], Any]], Any]) -> None:
        """run: runs work on the connection, in its thread."""
        self.run = run

    def cursor(self) -> AioCursor:
        return AioCursor(self)

    async def create_function(self, *args: Any, **options: Any) -> None:
        await self.run(lambda connection: connection.create_function(*args, **options))

    async def commit(self) -> None:
        """The store commits."""

    async def rollback(self) -> None:
        """The store rolls back; a session's own part of it is a savepoint."""

    async def close(self) -> None:
        """The store's writer stays open."""

    def stop(self) -> None:
        """The same."""


class AioCursor:
    """As `aiosqlite.Cursor`; reads all rows at once."""

    description: Sequence[Any] | None = None
    rowcount = -1
    lastrowid: int | None = None
    arraysize = 1

    def __init__(self, connection: AioConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []

    async def __aenter__(self) -> AioCursor:
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> None:
        await self._do(lambda cursor: cursor.execute(sql, parameters or ()))

    async def executemany(self, sql: str, parameters: Any) -> None:
        await self._do(lambda cursor: cursor.executemany(sql, parameters))

    async def _do(self, work: Callable[[sqlite3.Cursor], object]) -> None:
        def job(connection: sqlite3.Connection) -> tuple[Any, list[Any], int, int | None]:
            cursor = connection.cursor()
            work(cursor)
            rows = [tuple(map(_text_of, row)) for row in cursor] if cursor.description is not None else []
            return cursor.description, rows, cursor.rowcount, cursor.lastrowid

        self.description, self._rows, self.rowcount, self.lastrowid = await self._connection.run(job)

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        count = size or self.arraysize
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    async def close(self) -> None:
        """There is nothing to close."""


def _text_of(value: object) -> object:
    """Return a date as SQLAlchemy's types for SQLite read it, which our connections have read already."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value
