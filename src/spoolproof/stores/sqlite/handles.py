"""The user's own open transaction, as the store writes through it.

A plain `sqlite3.Connection` is used on the thread that called us, its own: the event loop's. So a statement of ours
must never wait for SQLite's lock inside SQLite. The holder of that lock may be a transaction of this very process that
needs the loop to go on; both would stand still until the busy timeout. The busy timeout is therefore 0 for our
statements, and we wait on the loop.

A connection is checked and set up at its first publish. It cannot be referenced weakly, so a `_Mark` stands for it: an
SQL function that SQLite lets go when the connection is closed. While the mark lives, so does the connection, and its
`id` is nobody else's.

Never here: commit, rollback, close; keeping a user's connection alive.
Must change together: what is set here and in `sqlite.connection`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import NotInTransaction, OutboxMissing, StoreUnavailable, UnsupportedTransaction, WrongDatabase
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.sqlite.errors import is_away, unavailable
from spoolproof.stores import sqlalchemy_handles
from spoolproof.stores.sqlite.transaction import SqliteTransaction

T = TypeVar("T")

_SUPPORTED = ("sqlite3.Connection", *sqlalchemy_handles.SUPPORTED)
_LOCK_POLL_SECONDS = 0.005
_FILES = "pragma database_list"  #: number 0 is main; as a SELECT it would open a read, and age the transaction
_HAS_OUTBOX = "select 1 from sqlite_schema where type = 'table' and name = 'spoolproof_outbox'"


class _Mark:
    """What SQLite holds as long as a connection is open."""

    __slots__ = ("__weakref__",)

    def __call__(self) -> None:
        """An SQL function has to be callable; nobody calls it."""


_known: WeakValueDictionary[tuple[int, Path], _Mark] = WeakValueDictionary()  #: by id of the connection, and store


async def adopt(handle: object, path: Path, clock: Clock) -> StoreTransaction:
    """Wrap a user's transaction on the store's file. Raises as `ports.store.Store.adopt`."""
    if isinstance(handle, sqlite3.Connection):
        return await _adopt_connection(handle, path, clock)
    adopted = await sqlalchemy_handles.adopt(handle, dialect="sqlite")
    if adopted is None:
        raise UnsupportedTransaction(handle, _SUPPORTED)
    if not adopted.is_known(str(path)):
        await _check_place(adopted, path)
        adopted.mark_known(str(path))
    return adopted


async def _adopt_connection(connection: sqlite3.Connection, path: Path, clock: Clock) -> SqliteTransaction:
    if not connection.in_transaction:
        raise NotInTransaction(
            "transaction=sqlite3.Connection has no open transaction; publish after "
            "connection.execute('BEGIN IMMEDIATE') and before connection.commit()"
        )

    async def run(work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await _without_blocking(connection, work, clock)
        except sqlite3.Error as error:
            if str(error).startswith("no such table: spoolproof_"):
                raise _outbox_missing(path, path) from error
            if is_away(error):
                raise unavailable(str(path), error) from error
            raise

    if (id(connection), path) not in _known:
        await _check_new(connection, path)
    return SqliteTransaction(run, connection)


async def _check_new(connection: sqlite3.Connection, path: Path) -> None:
    async def run_at_once(work: Callable[[sqlite3.Connection], T]) -> T:
        return work(connection)

    await _check_place(SqliteTransaction(run_at_once, connection), path)
    _pragma(connection, "pragma wal_autocheckpoint = 0")  # only our writer's thread checkpoints
    mark = _Mark()
    try:
        connection.create_function("spoolproof_known", 0, mark)
    except sqlite3.OperationalError:
        return  # marked by another store, and in the middle of a SELECT: checked again next time
    _known[id(connection), path] = mark


async def _without_blocking(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], clock: Clock) -> T:
    deadline = clock.monotonic() + limits.STATEMENT_SECONDS
    while True:
        busy_milliseconds = _pragma(connection, "pragma busy_timeout")
        if busy_milliseconds:
            _pragma(connection, "pragma busy_timeout = 0")
        try:
            return work(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT:
                raise StoreUnavailable(
                    "the transaction has read before others wrote, so SQLite will not let it write; "
                    "open it with BEGIN IMMEDIATE and run it again"
                ) from error
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or clock.monotonic() >= deadline:
                raise
        finally:
            if busy_milliseconds:
                _pragma(connection, f"pragma busy_timeout = {busy_milliseconds}")
        await clock.sleep(_LOCK_POLL_SECONDS)


def _pragma(connection: sqlite3.Connection, sql: str) -> Any:
    cursor = connection.cursor()
    cursor.row_factory = None
    (value,) = cursor.execute(sql).fetchone()
    return value


async def _check_place(tx: StoreTransaction, path: Path) -> None:
    """Refuse a transaction of another file. By the file itself: a copy of it would know any id kept inside.

    Nothing is read of the right file: a transaction that has read may be too old to write by the time of its INSERT.
    """
    file = next(row["file"] for row in await tx.fetch(_FILES) if row["seq"] == 0)
    if _is_same(file, path):
        return
    place = file or "a database in memory"
    if not await tx.fetch(_HAS_OUTBOX):
        raise _outbox_missing(place, path)
    raise WrongDatabase(
        f"transaction= is on {place}, the service's store is {path}; pass a transaction on that file, or point "
        "SPOOLPROOF_STORE at yours"
    )


def _outbox_missing(place: object, path: Path) -> OutboxMissing:
    return OutboxMissing(
        f"the database of this transaction ({place}) has no outbox; pass a transaction on {path}, or run: "
        "spoolproof migrate"
    )


def _is_same(file: str, path: Path) -> bool:
    try:
        return os.path.samefile(file, path)
    except OSError:  # in memory, or deleted
        return False
