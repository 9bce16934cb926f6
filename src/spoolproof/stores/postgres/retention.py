"""Deleting by age on PostgreSQL, by the server's clock."""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof import limits
from spoolproof.ports.retention import Rule
from spoolproof.statements import filled, load_statements
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.retention import RuleByRule, words_of

_SQL = load_statements(__package__, "retention.sql")


class PostgresRetention(RuleByRule):
    def __init__(self, upkeep: Pool, rules: Sequence[Rule]) -> None:
        super().__init__(rules)
        self._upkeep = upkeep

    async def delete(self, rule: Rule, seconds: float, limit: int) -> int:
        values = (seconds, limit, *rule.where.values())
        sql = filled(_SQL["prune"], words_of(rule))
        return await self._upkeep.execute(sql, *values, seconds=limits.MAINTENANCE_STATEMENT_SECONDS)
