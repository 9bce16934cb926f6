"""The memory store's acts of people."""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof.ports.audit import AuditRecord
from spoolproof.stores.memory.store import MemoryStore

TABLE = "audit"


class MemoryAudit:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def begin(self, record: AuditRecord) -> None:
        async with self._store.transaction() as tx:
            tx.table(TABLE)[record.id] = record

    async def end(self, record: AuditRecord) -> None:
        async with self._store.transaction() as tx:
            table = tx.table(TABLE)
            if record.id in table:
                table[record.id] = record

    async def search(self, before: str | None, limit: int) -> Sequence[AuditRecord]:
        found: list[AuditRecord] = list(self._store.table(TABLE).values())
        found = [one for one in found if before is None or one.id < before]
        return sorted(found, key=lambda one: one.id, reverse=True)[:limit]
