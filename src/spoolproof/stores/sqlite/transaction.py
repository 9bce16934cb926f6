"""A transaction on an sqlite3 connection, ours or the user's; who runs the work, and on which thread, is passed in.

`$1`, `$2` … are SQLite's named parameters `1`, `2` …; `?` works too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from spoolproof.ports.transaction import Row
from spoolproof.sqlite import Transaction
from spoolproof.stores.orm import AioConnection, session_on
from spoolproof.stores.savepoints import savepoint, sets_savepoint
from spoolproof.stores.sqlite.values import stored
from spoolproof.stores.values import checked

T = TypeVar("T")
S = TypeVar("S")


class Run(Protocol):
    """Runs work on the connection of an open transaction."""

    async def __call__(self, work: Callable[[sqlite3.Connection], T]) -> T: ...


class SqliteTransaction:
    """Implements `StoreTransaction`."""

    __slots__ = ("_raw", "run")

    def __init__(self, run: Run, raw: object) -> None:
        self.run = run
        self._raw = raw

    @property
    def raw(self) -> object:
        return self._raw

    async def execute(self, sql: str, *args: object) -> int:
        return await self.run(lambda connection: changed_rows(_execute(connection, sql, args)))

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        return await self.run(lambda connection: rows_of(_execute(connection, sql, args)))


class OwnSqliteTransaction(SqliteTransaction):
    """Implements `OwnTransaction`."""

    __slots__ = ("_write",)

    def __init__(self, tx: Transaction) -> None:
        super().__init__(tx.run, None)
        self._write: Callable[[], Awaitable[None]] | None = None

    @property
    def raw(self) -> object:
        """The connection, on its own thread: `await tx.raw.run(lambda connection: …)`."""
        return _Raw(self)

    async def execute(self, sql: str, *args: object) -> int:
        if sets_savepoint(sql):
            await self.write_before()
        return await super().execute(sql, *args)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        if sets_savepoint(sql):
            await self.write_before()
        return await super().fetch(sql, *args)

    def before_savepoint(self, write: Callable[[], Awaitable[None]]) -> None:
        self._write = write

    def session(self, kind: type[S]) -> AbstractAsyncContextManager[S]:
        return self._session(kind)

    @asynccontextmanager
    async def _session(self, kind: type[S]) -> AsyncIterator[S]:
        await self.write_before()  # what it begins are savepoints
        async with session_on("sqlite", "sqlite+aiosqlite://", kind, AioConnection(self.run)) as session:
            yield session

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return savepoint(self)

    async def write_before(self) -> None:
        """Write what must not be in a savepoint."""
        if self._write is not None:
            await self._write()


class _Raw:
    """What `raw` is: the work may set savepoints that nobody else sees."""

    def __init__(self, tx: OwnSqliteTransaction) -> None:
        self._tx = tx

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `work`, run on the writer's thread. It must not begin, commit or roll back."""
        await self._tx.write_before()
        return await self._tx.run(work)


def _execute(connection: sqlite3.Connection, sql: str, args: Sequence[object]) -> sqlite3.Cursor:
    cursor = connection.cursor()
    cursor.row_factory = None  # a user's own connection may make other rows
    return cursor.execute(sql, _parameters(sql, [stored(value) for value in checked(args)]))


def _parameters(sql: str, args: Sequence[object]) -> Mapping[str, Any] | Sequence[Any]:
    return {str(number): value for number, value in enumerate(args, 1)} if "$1" in sql else args


def changed_rows(cursor: sqlite3.Cursor) -> int:
    """Return how many rows a statement changed; 0 for one that changes none."""
    if cursor.description is not None:
        cursor.fetchall()  # RETURNING has done all its work, and is counted, after the last row
    return max(0, cursor.rowcount)


def rows_of(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """Return what a query found, by the names of its columns."""
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]
