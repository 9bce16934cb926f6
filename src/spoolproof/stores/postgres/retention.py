"""Deleting by age on PostgreSQL, by the server's clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spoolproof import limits
from spoolproof.ports.retention import Rule
from spoolproof.statements import filled, load_statements
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.retention import words_of

_SQL = load_statements(__package__, "retention.sql")


class PostgresRetention:
    def __init__(self, upkeep: Pool, rules: Sequence[Rule]) -> None:
        self._upkeep = upkeep
        self._rules = rules

    async def prune(self, seconds_of: Callable[[Rule], float], limit: int) -> int:
        return sum([await self._prune(rule, seconds_of(rule), limit) for rule in self._rules])

    async def _prune(self, rule: Rule, seconds: float, limit: int) -> int:
        sql = filled(_SQL["prune"], words_of(rule))
        values = (seconds, limit, *rule.where.values())
        return await self._upkeep.execute(sql, *values, seconds=limits.MAINTENANCE_STATEMENT_SECONDS)
