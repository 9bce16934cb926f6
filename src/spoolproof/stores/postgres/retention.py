"""Deleting by age on PostgreSQL, by the server's clock."""

from __future__ import annotations

from spoolproof import limits
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.connections import Pool

_SQL = load_statements(__package__, "retention.sql")


class PostgresRetention:
    def __init__(self, upkeep: Pool) -> None:
        self._upkeep = upkeep

    async def prune(self, *, inbox_seconds: float, closed_seconds: float, limit: int) -> int:
        seconds = limits.MAINTENANCE_STATEMENT_SECONDS
        handled = await self._upkeep.execute(_SQL["prune_inbox"], inbox_seconds, limit, seconds=seconds)
        closed = await self._upkeep.execute(_SQL["prune_dead_letters"], closed_seconds, limit, seconds=seconds)
        await self._upkeep.execute(_SQL["prune_processes"], limit, seconds=seconds)
        return handled + closed
