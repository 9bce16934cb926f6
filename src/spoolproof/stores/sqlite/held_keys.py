"""Held keys on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from spoolproof.ports.transaction import OwnTransaction
from spoolproof.sqlite import load_statements
from spoolproof.stores.held_keys import SqlHeldKeys
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of, seconds_of
from spoolproof.stores.sqlite.transaction import rows_of

_SQL = load_statements(__package__, "held_keys.sql")


class SqliteHeldKeys(SqlHeldKeys):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__(_SQL)
        self._store = store

    def _transaction(self) -> AbstractAsyncContextManager[OwnTransaction]:
        return self._store.transaction()

    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        named = {str(number): value for number, value in enumerate(args, 1)}

        def work(connection: sqlite3.Connection) -> list[Mapping[str, Any]]:
            return list(rows_of(connection.execute(sql, named)))

        return [_with_instants(row) for row in await self._store.database.read(work)]

    def _stored(self, columns: Sequence[object]) -> Sequence[object]:
        return [seconds_of(one) if isinstance(one, datetime) else one for one in columns]

    @property
    def _service(self) -> str:
        return self._store.services.own_name


def _with_instants(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        name: instant_of(value) if value is not None and (name.endswith("_at") or name == "since") else value
        for name, value in row.items()
    }
