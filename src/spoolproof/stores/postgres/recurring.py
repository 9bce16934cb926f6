"""Recurring runs on PostgreSQL, due by the server's clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from spoolproof.message import Outgoing, message_key, shard_of
from spoolproof.ports.recurring import Found, RecurringRow
from spoolproof.statements import load_statements
from spoolproof.stores.outbox import columns_of
from spoolproof.stores.postgres.store import PostgresStore

_SQL = load_statements(__package__, "recurring.sql")


class PostgresRecurring:
    def __init__(self, store: PostgresStore) -> None:
        self._upkeep = store.upkeep
        self._services = store.services

    async def find(self, service: str | None) -> Found:
        rows = [dict(row) for row in await self._upkeep.fetch(_SQL["find"], service)]
        (now, *_) = [row.pop("now") for row in rows]
        return Found(now=now, rows=[RecurringRow(**row) for row in rows if row["name"] is not None])

    async def declare(
        self, service: str, name: str, expression: str, next_at: datetime, *, stale_seconds: float
    ) -> None:
        await self._upkeep.execute(_SQL["declare"], service, name, expression, next_at, stale_seconds)

    async def advance(self, row: RecurringRow, next_at: datetime, run: Outgoing) -> bool:
        shards = self._services.own.shards
        columns = columns_of(run, shards[shard_of(run.message, len(shards))])
        values = (row.service, row.name, row.next_at, next_at, message_key(run.message), row.expression)
        return await self._upkeep.execute(_SQL["advance"], *columns, *values) == 1

    async def forget(self, service: str, seconds: float) -> Sequence[str]:
        return [row["name"] for row in await self._upkeep.fetch(_SQL["forget"], service, seconds)]
