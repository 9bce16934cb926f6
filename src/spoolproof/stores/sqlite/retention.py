"""Deleting by age on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from spoolproof.ports.retention import Rule
from spoolproof.sqlite import NOW, STEADY, Database, load_statements
from spoolproof.statements import filled
from spoolproof.stores.retention import words_of

_SQL = load_statements(__package__, "retention.sql")


class SqliteRetention:
    def __init__(self, database: Database, rules: Sequence[Rule]) -> None:
        self._database = database
        self._rules = rules

    async def prune(self, seconds_of: Callable[[Rule], float], limit: int) -> int:
        return sum([await self._prune(rule, seconds_of(rule), limit) for rule in self._rules])

    async def _prune(self, rule: Rule, seconds: float, limit: int) -> int:
        sql = filled(_SQL["prune"], {**words_of(rule), "clock": STEADY if rule.is_steady else NOW})
        values = {str(number): value for number, value in enumerate((seconds, limit, *rule.where.values()), 1)}

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(sql, values).rowcount

        return await self._database.write(work)
