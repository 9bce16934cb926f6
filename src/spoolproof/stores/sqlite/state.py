"""Small facts that outlive a process, on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from spoolproof.ports.state import StateRecord, check_value
from spoolproof.sqlite import Database, load_statements
from spoolproof.stores.sqlite.times import instant_of

_SQL = load_statements(__package__, "state.sql")


class SqliteState:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, kind: str, name: str) -> StateRecord | None:
        row = await self._database.read(lambda connection: connection.execute(_SQL["get"], (kind, name)).fetchone())
        return None if row is None else _record(*row)

    async def put(self, kind: str, name: str, value: bytes) -> int:
        check_value(kind, name, value)

        def work(connection: sqlite3.Connection) -> int:
            ((version,),) = connection.execute(_SQL["put"], (kind, name, value)).fetchall()
            return int(version)

        return await self._database.write(work)

    async def all(self, kind: str) -> Mapping[str, StateRecord]:
        rows = await self._database.read(lambda connection: connection.execute(_SQL["all"], (kind,)).fetchall())
        return {name: _record(*values) for name, *values in rows}

    async def remove(self, kind: str, name: str) -> bool:
        return await self._database.write(
            lambda connection: connection.execute(_SQL["remove"], (kind, name)).rowcount == 1
        )


def _record(value: bytes, version: int, updated_at: float) -> StateRecord:
    return StateRecord(value=value, version=version, updated_at=instant_of(updated_at))
