"""Sagas on SQLite. The clock is the machine's, as the service reads it: the file has no other."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

from spoolproof.ports.transaction import OwnTransaction
from spoolproof.sqlite import STEADY
from spoolproof.stores.sagas import SqlSagas, statements_of
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of, seconds_of
from spoolproof.stores.sqlite.transaction import rows_of

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

    def _transaction(self) -> AbstractAsyncContextManager[OwnTransaction]:
        return self._store.transaction()

    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        named = {str(number): value for number, value in enumerate(args, 1)}

        def work(connection: sqlite3.Connection) -> list[Mapping[str, Any]]:
            return list(rows_of(connection.execute(sql, named)))

        return await self._store.database.read(work)

    def _now(self) -> object:
        return seconds_of(self._store.clock.now())

    def _process(self, id: UUID) -> object:
        return str(id)

    def _read_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: instant_of(value) if value is not None and (name.endswith("_at") or name == "now") else value
            for name, value in row.items()
        }
