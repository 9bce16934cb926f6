"""The memory store's deleting by age."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from spoolproof.stores.memory.dead_letters import DEAD_LETTERS
from spoolproof.stores.memory.inbox import INBOX

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore


class MemoryRetention:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def prune(self, *, inbox_seconds: float, closed_seconds: float, limit: int) -> int:
        async with self._store.transaction() as tx:
            now, deleted = self._store.clock.now(), 0
            for table, column, seconds in (
                (INBOX, "processed_at", inbox_seconds),
                (DEAD_LETTERS, "closed_at", closed_seconds),
            ):
                rows, before = tx.table(table), now - timedelta(seconds=seconds)
                old = [key for key, row in rows.items() if (getattr(row, column) or now) < before][:limit]
                for key in old:
                    del rows[key]
                deleted += len(old)
            return deleted
