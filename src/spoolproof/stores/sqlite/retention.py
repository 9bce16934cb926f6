"""Deleting by age on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof.ports.retention import Rule
from spoolproof.sqlite import NOW, STEADY, Database, load_statements
from spoolproof.statements import filled
from spoolproof.stores.retention import RuleByRule, words_of

_SQL = load_statements(__package__, "retention.sql")


class SqliteRetention(RuleByRule):
    def __init__(self, database: Database, rules: Sequence[Rule]) -> None:
        super().__init__(rules)
        self._database = database

    async def delete(self, rule: Rule, seconds: float, limit: int) -> int:
        sql = filled(_SQL["prune"], {**words_of(rule), "clock": STEADY if rule.is_steady else NOW})
        values = {str(number): value for number, value in enumerate((seconds, limit, *rule.where.values()), 1)}
        return await self._database.write(lambda connection: connection.execute(sql, values).rowcount)
