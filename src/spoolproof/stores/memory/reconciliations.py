"""The memory store's marks and runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from spoolproof.ports.reconciliations import Mark, Run
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import own

MARKS, RUNS = "reconciliation_mark", "reconciliation_run"


@dataclass(frozen=True, slots=True)
class _Row:
    mark: Mark
    next_at: datetime


class MemoryReconciliations:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def mark(self, tx: StoreTransaction, service: str, reconciler: str, key: str, now: datetime) -> None:
        table = own(self._store, tx).table(MARKS)
        known: _Row | None = table.get((service, reconciler, key))
        mark = Mark(reconciler, key, 1, 0) if known is None else replace(known.mark, dirty=known.mark.dirty + 1)
        table[service, reconciler, key] = _Row(mark, now)

    async def due(self, service: str, now: datetime, limit: int) -> Sequence[Mark]:
        rows = [row for key, row in self._store.table(MARKS).items() if key[0] == service and row.next_at <= now]
        return [row.mark for row in sorted(rows, key=lambda row: (row.next_at, row.mark.reconciler, row.mark.key))][
            :limit
        ]

    async def settle(self, service: str, mark: Mark) -> bool:
        async with self._store.transaction() as tx:
            table, place = tx.table(MARKS), (service, mark.reconciler, mark.key)
            if place not in table or table[place].mark.dirty != mark.dirty:
                return False
            del table[place]
            return True

    async def delay(self, service: str, mark: Mark, next_at: datetime, note: str) -> None:
        async with self._store.transaction() as tx:
            table, place = tx.table(MARKS), (service, mark.reconciler, mark.key)
            if place in table and table[place].mark.dirty == mark.dirty:
                table[place] = _Row(replace(mark, failures=mark.failures + 1 if note else 0), next_at)

    async def wake(self, service: str, reconciler: str, now: datetime) -> int:
        async with self._store.transaction() as tx:
            table = tx.table(MARKS)
            places = [place for place, row in table.items() if place[:2] == (service, reconciler) and row.next_at > now]
            table.update({place: replace(table[place], next_at=now) for place in places})
            return len(places)

    async def marks(self, service: str | None) -> Mapping[tuple[str, str], int]:
        return Counter(place[:2] for place in sorted(self._store.table(MARKS)) if service in (None, place[0]))

    async def start(self, tx: StoreTransaction, run: Run) -> bool:
        table = own(self._store, tx).table(RUNS)
        if any(
            (one.service, one.reconciler, one.finished_at) == (run.service, run.reconciler, None)
            for one in table.values()
        ):
            return False
        table[run.id] = run
        return True

    async def write(self, tx: StoreTransaction, run: Run) -> bool:
        table = own(self._store, tx).table(RUNS)
        if run.id not in table or table[run.id].version != run.version:
            return False
        table[run.id] = msgspec.structs.replace(run, version=run.version + 1)
        return True

    async def runs(self, service: str | None, reconciler: str | None, limit: int) -> Sequence[Run]:
        runs: list[Run] = [
            run
            for run in self._store.table(RUNS).values()
            if service in (None, run.service) and reconciler in (None, run.reconciler)
        ]
        return sorted(runs, key=lambda run: (run.started_at, run.id), reverse=True)[:limit]

    async def get(self, id: str) -> Run | None:
        return self._store.table(RUNS).get(id)
