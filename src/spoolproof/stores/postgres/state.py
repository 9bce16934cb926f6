"""Small facts that outlive a process, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spoolproof.ports.state import StateRecord, check_value
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.connections import Pool

_SQL = load_statements(__package__, "state.sql")


class PostgresState:
    def __init__(self, upkeep: Pool) -> None:
        self._upkeep = upkeep

    async def get(self, kind: str, name: str) -> StateRecord | None:
        rows = await self._upkeep.fetch(_SQL["get"], kind, name)
        return _record(rows[0]) if rows else None

    async def put(self, kind: str, name: str, value: bytes) -> int:
        check_value(kind, name, value)
        return int(await self._upkeep.fetch_value(_SQL["put"], kind, name, value))

    async def all(self, kind: str) -> Mapping[str, StateRecord]:
        return {row["name"]: _record(row) for row in await self._upkeep.fetch(_SQL["all"], kind)}

    async def remove(self, kind: str, name: str) -> bool:
        return await self._upkeep.execute(_SQL["remove"], kind, name) == 1


def _record(row: Any) -> StateRecord:
    return StateRecord(value=row["value"], version=row["version"], updated_at=row["updated_at"])
