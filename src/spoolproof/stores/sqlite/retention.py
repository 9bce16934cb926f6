"""Deleting by age on SQLite."""

from __future__ import annotations

import sqlite3

from spoolproof.sqlite import Database, load_statements

_SQL = load_statements(__package__, "retention.sql")


class SqliteRetention:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, *, inbox_seconds: float, closed_seconds: float, limit: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            handled = connection.execute(_SQL["prune_inbox"], (inbox_seconds, limit)).rowcount
            closed = connection.execute(_SQL["prune_dead_letters"], (closed_seconds, limit)).rowcount
            connection.execute(_SQL["prune_processes"], (limit,))
            return handled + closed

        return await self._database.write(work)
