"""The memory store's scheduled messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from spoolproof import limits
from spoolproof.errors import ScheduleFull
from spoolproof.message import Outgoing
from spoolproof.ports.schedule import Promotion, ScheduledRow
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import MemoryTransaction, own
from spoolproof.stores.outbox import check_room
from spoolproof.stores.schedule import due_at

SCHEDULED = "scheduled"


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    row: ScheduledRow


class MemorySchedule:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._rows_max = limits.SCHEDULED_ROWS_MAX

    async def add(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if tx is None:
            async with self._store.transaction() as mine:
                self._add(mine, records)
        else:
            self._add(own(self._store, tx), records)

    def _add(self, tx: MemoryTransaction, records: Sequence[Outgoing]) -> None:
        now, service, rows = self._store.clock.now(), self._store.services.own_name, tx.table(SCHEDULED)
        check_room(len(_of(rows, service)), len(records), self._rows_max, ScheduleFull)
        for outgoing in records:
            tx.tables.last_id += 1
            row = ScheduledRow(
                service=service,
                outgoing=msgspec.structs.replace(outgoing, due=None),
                due_at=due_at(outgoing, now),
                created_at=now,
            )
            rows[tx.tables.last_id] = _Row(tx.tables.last_id, row)

    async def cancel(self, message_id: str, service: str | None, tx: StoreTransaction | None = None) -> int:
        if tx is None:
            async with self._store.transaction() as mine:
                return self._cancel(mine, message_id, service)
        return self._cancel(own(self._store, tx), message_id, service)

    def _cancel(self, tx: MemoryTransaction, message_id: str, service: str | None) -> int:
        rows: dict[int, _Row] = tx.table(SCHEDULED)
        found = [kept.id for kept in _of(rows, service) if kept.row.outgoing.message.id == message_id]
        for id in found:
            del rows[id]
        return len(found)

    async def promote(self, service: str, limit: int) -> Promotion:
        now = self._store.clock.now()
        if not any(kept.row.due_at <= now for kept in _of(self._store.table(SCHEDULED), service)):
            return Promotion(rows=0, late_seconds=0.0)
        async with self._store.transaction() as tx:
            due = [kept for kept in _of(tx.table(SCHEDULED), service) if kept.row.due_at <= now][:limit]
            block = self._store.services.block_of(tx, service)
            for kept in due:
                del tx.table(SCHEDULED)[kept.id]
                self._store.outbox.add(tx, kept.row.outgoing, block)
        late = max(((now - kept.row.due_at).total_seconds() for kept in due), default=0.0)
        return Promotion(rows=len(due), late_seconds=late)

    async def search(self, service: str | None, limit: int) -> Sequence[ScheduledRow]:
        return [kept.row for kept in _of(self._store.table(SCHEDULED), service)][:limit]

    async def count(self, service: str) -> int:
        return len(_of(self._store.table(SCHEDULED), service))


def _of(rows: dict[int, _Row], service: str | None) -> list[_Row]:
    """Return the rows of a service, or of all, in the order in which they are due."""
    found = [kept for kept in rows.values() if service is None or kept.row.service == service]
    return sorted(found, key=lambda kept: (kept.row.due_at, kept.id))
