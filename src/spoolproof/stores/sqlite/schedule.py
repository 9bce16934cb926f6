"""Scheduled messages on SQLite. The clock is the machine's, as the service reads it: the file has no other."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from spoolproof import limits
from spoolproof.errors import ScheduleFull
from spoolproof.message import Outgoing
from spoolproof.ports.schedule import Promotion, ScheduledRow
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.sqlite import load_statements
from spoolproof.stores.outbox import COLUMNS, Room, columns_of
from spoolproof.stores.schedule import due_at, scheduled_row
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of, seconds_of

_SQL = load_statements(__package__, "schedule.sql")
_ALL = (*COLUMNS, "service", "due_at")
_ADD = f"insert into spoolproof_scheduled ({', '.join(_ALL)}) values ({', '.join(f'${n}' for n in range(1, 11))})"


class SqliteSchedule:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._database = store.database
        self._most = limits.SCHEDULED_ROWS_MAX + 1
        self._room = Room(self._most - 1, self._count_own, clock=store.clock, full=ScheduleFull)

    async def add(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        await self._room.take(len(records))
        now, services = self._store.clock.now(), self._store.services
        rows = [
            (*columns_of(outgoing, services.own.first), services.own_name, seconds_of(due_at(outgoing, now)))
            for outgoing in records
        ]
        if tx is None:
            body_bytes = sum(len(outgoing.message.body) for outgoing in records)
            await self._database.write(lambda db: db.executemany(_ADD, map(_named, rows)), body_bytes=body_bytes)
        else:
            for row in rows:
                await tx.execute(_ADD, *row)

    async def cancel(self, message_id: str, service: str | None, tx: StoreTransaction | None = None) -> int:
        if tx is not None:
            return await tx.execute(_SQL["cancel"], message_id, service)
        values = _named((message_id, service))
        return await self._database.write(lambda db: db.execute(_SQL["cancel"], values).rowcount)

    async def promote(self, service: str, limit: int) -> Promotion:
        now = seconds_of(self._store.clock.now())
        (has_due,) = await self._database.read(lambda db: db.execute(_SQL["has_due"], (service, now)).fetchone())
        if not has_due:
            return Promotion(rows=0, late_seconds=0.0)

        def work(connection: sqlite3.Connection) -> Promotion:
            due = connection.execute(_SQL["due"], (service, now, limit)).fetchall()
            for id, _ in due:
                connection.execute(_SQL["move"], (id,))
                connection.execute(_SQL["forget"], (id,))
            return Promotion(rows=len(due), late_seconds=now - due[0][1] if due else 0.0)

        return await self._database.write(work)

    async def search(self, service: str | None, limit: int) -> Sequence[ScheduledRow]:
        rows = await self._database.read(lambda db: db.execute(_SQL["search"], (service, limit)).fetchall())
        return [scheduled_row(columns, instant_of(due), instant_of(made)) for *columns, due, made in rows]

    async def count(self, service: str) -> int:
        (rows,) = await self._database.read(lambda db: db.execute(_SQL["count"], (service, self._most)).fetchone())
        return int(rows)

    async def _count_own(self) -> int:
        return await self.count(self._store.services.own_name)


def _named(values: Sequence[object]) -> dict[str, object]:
    return {str(number): value for number, value in enumerate(values, 1)}
