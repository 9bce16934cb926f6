"""The memory store's batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from spoolproof.ports.batches import Batch, BatchState, Counts, Item, ItemState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import own

BATCHES, ITEMS = "batch", "batch_item"


@dataclass(frozen=True, slots=True)
class _Row:
    item: Item
    body: str
    closed_at: datetime | None = None


class MemoryBatches:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def add(self, tx: StoreTransaction, batch: Batch, items: Sequence[tuple[Item, str]]) -> bool:
        mine = own(self._store, tx)
        if batch.id in mine.table(BATCHES):
            return False
        mine.table(BATCHES)[batch.id] = batch
        mine.table(ITEMS).update({(batch.id, item.n): _Row(item, body) for item, body in items})
        return True

    async def get(self, id: str) -> tuple[Batch, Counts] | None:
        batch: Batch | None = self._store.table(BATCHES).get(id)
        counts = Counter(row.item.state for row in _rows(self._store.table(ITEMS), id))
        return None if batch is None else (batch, {state: counts[state] for state in ItemState})

    async def search(
        self, *, service: str | None = None, job: str | None = None, state: BatchState | None = None, limit: int = 100
    ) -> Sequence[Batch]:
        wanted = {name: value for name, value in dict(service=service, job=job, state=state).items() if value}
        found: list[Batch] = [
            one
            for one in self._store.table(BATCHES).values()
            if all(getattr(one, name) == value for name, value in wanted.items())
        ]
        return sorted(found, key=lambda one: (one.started_at, one.id), reverse=True)[:limit]

    async def items(
        self, id: str, states: Collection[ItemState], *, after: int = -1, limit: int = 1000
    ) -> Sequence[tuple[Item, str]]:
        rows = [row for row in _rows(self._store.table(ITEMS), id) if row.item.n > after and row.item.state in states]
        return [(row.item, row.body) for row in sorted(rows, key=lambda row: row.item.n)[:limit]]

    async def standing(self, id: str, n: int) -> tuple[BatchState, ItemState] | None:
        batch, row = self._store.table(BATCHES).get(id), self._store.table(ITEMS).get((id, n))
        return None if batch is None or row is None else (batch.state, row.item.state)

    async def put(self, tx: StoreTransaction, id: str, item: Item, *, before: Collection[ItemState]) -> bool:
        table = own(self._store, tx).table(ITEMS)
        row: _Row | None = table.get((id, item.n))
        if row is None or row.item.state not in before:
            return False
        table[id, item.n] = replace(row, item=item)
        return True

    async def over(self, service: str, limit: int) -> Sequence[str]:
        running = await self.search(service=service, state=BatchState.RUNNING, limit=1_000_000)
        table = self._store.table(ITEMS)
        return [one.id for one in reversed(running) if not _has_pending(table, one.id)][:limit]

    async def end(self, tx: StoreTransaction, id: str, *, cancel: bool = False) -> Batch | None:
        mine, now = own(self._store, tx), self._store.clock.now()
        batch: Batch | None = mine.table(BATCHES).get(id)
        if batch is None or batch.state is not BatchState.RUNNING:
            return None
        if not cancel and _has_pending(mine.table(ITEMS), id):
            return None
        state = BatchState.CANCELLED if cancel else BatchState.FINISHED
        mine.table(BATCHES)[id] = ended = replace(batch, state=state, finished_at=now)
        _close(mine.table(ITEMS), id, now)
        return ended

    async def reopen(self, tx: StoreTransaction, id: str, now: datetime, states: Collection[ItemState]) -> None:
        mine = own(self._store, tx)
        batch: Batch = mine.table(BATCHES)[id]
        mine.table(BATCHES)[id] = replace(batch, state=BatchState.RUNNING, finished_at=None, started_at=now)
        _close(mine.table(ITEMS), id, None)
        for row in _rows(mine.table(ITEMS), id):
            if row.item.state in states:
                again = msgspec.structs.replace(row.item, state=ItemState.PENDING)
                mine.table(ITEMS)[id, again.n] = replace(row, item=again, closed_at=None)

    async def counts(self, service: str) -> Mapping[tuple[str, BatchState], int]:
        mine = [one for one in self._store.table(BATCHES).values() if one.service == service]
        return Counter((one.job, one.state) for one in mine)


def _rows(table: dict[Any, _Row], id: str) -> list[_Row]:
    return [row for key, row in table.items() if key[0] == id]


def _has_pending(table: dict[Any, _Row], id: str) -> bool:
    return any(row.item.state is ItemState.PENDING for row in _rows(table, id))


def _close(table: dict[Any, _Row], id: str, at: datetime | None) -> None:
    for row in _rows(table, id):
        table[id, row.item.n] = replace(row, closed_at=at)
