"""Scheduled messages on PostgreSQL, due by the server's clock."""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof import limits
from spoolproof.errors import ScheduleFull
from spoolproof.message import Outgoing, shard_of
from spoolproof.ports.schedule import Promotion, ScheduledRow
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.statements import load_statements
from spoolproof.stores.outbox import Room, columns_of
from spoolproof.stores.postgres.store import PostgresStore
from spoolproof.stores.postgres.transaction import PostgresTransaction
from spoolproof.stores.schedule import due_seconds, scheduled_row

_SQL = load_statements(__package__, "schedule.sql")


class PostgresSchedule:
    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._most = limits.SCHEDULED_ROWS_MAX + 1
        self._room = Room(self._most - 1, self._count_own, clock=store.clock, spawn=store.spawn, full=ScheduleFull)

    async def add(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        await self._room.take(len(records))
        services = self._store.services
        shards, name = services.own.shards, services.own_name
        rows = [
            (*columns_of(one, shards[shard_of(one.message, len(shards))]), name, *due_seconds(one)) for one in records
        ]
        if tx is not None and not isinstance(tx, PostgresTransaction):
            for row in rows:
                await tx.execute(_SQL["add_one"], *row)
            return
        arrays = [list(column) for column in zip(*rows, strict=True)]
        if tx is None:
            await self._store.work.execute(_SQL["add_many"], *arrays)
        else:
            await tx.write(_SQL["add_many"], *arrays)

    async def cancel(self, message_id: str, service: str | None, tx: StoreTransaction | None = None) -> int:
        if tx is None:
            return await self._store.upkeep.execute(_SQL["cancel"], message_id, service)
        return await tx.execute(_SQL["cancel"], message_id, service)

    async def promote(self, service: str, limit: int) -> Promotion:
        (row,) = await self._store.upkeep.fetch(_SQL["promote"], service, limit)
        return Promotion(rows=row["rows"], late_seconds=row["late_seconds"])

    async def search(self, service: str | None, limit: int) -> Sequence[ScheduledRow]:
        rows = await self._store.upkeep.fetch(_SQL["search"], service, limit)
        return [scheduled_row(columns, due, made) for *columns, due, made in map(tuple, rows)]

    async def count(self, service: str) -> int:
        return int(await self._store.upkeep.fetch_value(_SQL["count"], service, self._most))

    async def _count_own(self) -> int:
        return await self.count(self._store.services.own_name)
