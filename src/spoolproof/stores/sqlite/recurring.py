"""Recurring runs on SQLite. The clock is the machine's, as the service reads it: the file has no other."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from spoolproof.message import Outgoing, message_key
from spoolproof.ports.recurring import Found, RecurringRow
from spoolproof.sqlite import load_statements
from spoolproof.stores.outbox import columns_of
from spoolproof.stores.sqlite.outbox import insert
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of, seconds_of

_SQL = load_statements(__package__, "recurring.sql")


class SqliteRecurring:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._database = store.database

    async def find(self, service: str | None) -> Found:
        rows = await self._database.read(lambda db: db.execute(_SQL["find"], (service,)).fetchall())
        return Found(now=self._store.clock.now(), rows=[_row(*row) for row in rows])

    async def declare(
        self, service: str, name: str, expression: str, next_at: datetime, *, stale_seconds: float
    ) -> None:
        values = (service, name, expression, seconds_of(next_at), self._now(), stale_seconds)
        await self._database.write(lambda db: db.execute(_SQL["declare"], values).rowcount)

    async def advance(self, row: RecurringRow, next_at: datetime, run: Outgoing) -> bool:
        values = (row.service, row.name, seconds_of(row.next_at), seconds_of(next_at), message_key(run.message))
        columns = columns_of(run, self._store.services.own.first)

        def work(connection: sqlite3.Connection) -> bool:
            if not connection.execute(_SQL["advance"], (*values, row.expression)).rowcount:
                return False
            insert(connection, [columns])
            return True

        return await self._database.write(work)

    async def forget(self, service: str, seconds: float) -> Sequence[str]:
        values = (service, self._now() - seconds)
        rows = await self._database.write(lambda db: db.execute(_SQL["forget"], values).fetchall())
        return [name for (name,) in rows]

    def _now(self) -> float:
        return seconds_of(self._store.clock.now())


def _row(
    service: str, name: str, expression: str, next_at: float, declared_at: float, last_at: float | None, outcome: Any
) -> RecurringRow:
    return RecurringRow(
        service=service,
        name=name,
        expression=expression,
        next_at=instant_of(next_at),
        declared_at=instant_of(declared_at),
        last_at=None if last_at is None else instant_of(last_at),
        outcome=outcome,
    )
