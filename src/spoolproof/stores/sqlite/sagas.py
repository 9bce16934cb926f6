"""Sagas on SQLite. The clock is the machine's, as the service reads it: the file has no other.

A write without a transaction is a job of the writer: what many sagas write at the same time shares one commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from spoolproof.errors import InvariantViolated
from spoolproof.ports.sagas import Journal
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.sqlite import STEADY
from spoolproof.stores.sagas import SqlSagas, statements_of
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of, seconds_of
from spoolproof.stores.sqlite.transaction import SqliteTransaction

T = TypeVar("T")

_SQL = statements_of(
    {
        "saga": "spoolproof_saga",
        "process": "spoolproof_process",
        "now": "$1",
        "second": "1.0",
        "alive": STEADY,
        "lock": "",  # there is one writer
        "skip": "",
        "skip_s": "",
        "bytes": "blob",
    }
)


class SqliteSagas(SqlSagas):
    looks_first = True  # a look does not take the writer

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(_SQL)
        self._store = store

    async def _in_one(self, do: Callable[[StoreTransaction], Coroutine[Any, Any, T]]) -> T:
        return await self._store.database.write(lambda connection: _run(do(_on(connection))))

    async def journal(self, saga_id: str, tx: StoreTransaction | None = None) -> Journal | None:
        if tx is not None:
            return await super().journal(saga_id, tx)
        read = super().journal
        return await self._store.database.read(lambda connection: _run(read(saga_id, _on(connection))))

    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        return await self._store.database.read(lambda connection: _run(_on(connection).fetch(sql, *args)))

    def _now(self) -> object:
        return seconds_of(self._store.clock.now())

    def _process(self, id: UUID) -> object:
        return str(id)

    def _read_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: instant_of(value) if value is not None and (name.endswith("_at") or name == "now") else value
            for name, value in row.items()
        }


def _on(connection: sqlite3.Connection) -> SqliteTransaction:
    """Return the transaction that is open on a connection, for a job that runs on its thread."""

    async def run(work: Callable[[sqlite3.Connection], T]) -> T:
        return work(connection)

    return SqliteTransaction(run, None)


def _run(statements: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing."""
    try:
        statements.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise InvariantViolated("a statement of a job waited for something")
