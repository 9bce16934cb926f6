"""The memory store's bulks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from spoolproof.ports.bulk import LIVE, Bulk, BulkState, BulkStep, BulkVerb, advanced, changed
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.ports.leases import Fence
from spoolproof.stores.memory.dead_letters import matches
from spoolproof.stores.memory.leases import is_held
from spoolproof.stores.memory.transaction import MemoryTransaction

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

BULKS = "dead_letter_bulk"


@dataclass(frozen=True, slots=True)
class _Row:
    bulk: Bulk
    items: Mapping[str, bool | None]

    @property
    def ended_at(self) -> datetime | None:
        return self.bulk.ended_at


class MemoryBulks:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def start(self, bulk: Bulk, filter: DeadLetterFilter) -> Bulk:
        async with self._store.transaction() as tx:
            meant = [one for one in self._store.dead_letters.records() if matches(one, filter)]
            ids = sorted(one.id for one in meant if one.state in bulk.move.after)
            bulk = msgspec.structs.replace(bulk, total=len(ids))
            if not ids:
                bulk = msgspec.structs.replace(bulk, state=BulkState.DONE, ended_at=bulk.started_at)
            tx.table(BULKS)[bulk.id] = _Row(bulk, dict.fromkeys(ids))
        return bulk

    async def get(self, id: str) -> Bulk | None:
        row: _Row | None = self._store.table(BULKS).get(id)
        return None if row is None else row.bulk

    async def all(self, limit: int, *, live: bool = False) -> Sequence[Bulk]:
        found: list[Bulk] = [row.bulk for row in self._store.table(BULKS).values()]
        found.sort(key=lambda bulk: (bulk.started_at, bulk.id), reverse=not live)
        return [bulk for bulk in found if not live or bulk.ended_at is None][:limit]

    async def work(self, id: str, limit: int, fence: Fence) -> Bulk | None:
        async with self._store.transaction() as tx:
            row: _Row | None = tx.table(BULKS).get(id)
            if row is None or not is_held(tx, fence):
                return None
            bulk = row.bulk
            portion = limit if bulk.portion is None else min(limit, bulk.portion)
            if not portion:
                return bulk
            taken = [one for one, is_moved in row.items.items() if is_moved is None][:portion]
            moves = {one: self._move(tx, bulk, one) for one in taken}
            bulk = advanced(bulk, taken, sum(moves.values()), portion, self._store.clock.now())
            tx.table(BULKS)[id] = _Row(bulk, {**row.items, **moves})
        return bulk

    async def change(self, id: str, after: Sequence[BulkState], to: BulkState, actor: str, detail: str) -> bool:
        async with self._store.transaction() as tx:
            row: _Row | None = tx.table(BULKS).get(id)
            if row is None or row.bulk.state not in after:
                return False
            verb = "resumed" if row.bulk.state not in LIVE else to.value
            step = BulkStep(self._store.clock.now(), actor, verb, detail)
            tx.table(BULKS)[id] = replace(row, bulk=changed(row.bulk, to, step))
            return True

    async def outcomes(self, id: str) -> Mapping[DeadLetterState, int]:
        row: _Row | None = self._store.table(BULKS).get(id)
        items = {} if row is None else row.items
        states = [one.state for one in self._store.dead_letters.records() if items.get(one.id)]
        return {state: states.count(state) for state in set(states)}

    def _move(self, tx: MemoryTransaction, bulk: Bulk, id: str) -> bool:
        letters, detail = self._store.dead_letters, f"{bulk.reason} (bulk {bulk.id})"
        if bulk.verb is BulkVerb.DISCARD:
            return letters.discard_in(tx, id, bulk.actor, detail)
        return letters.replay_in(tx, id, bulk.actor, detail, queue=bulk.queue, force=bulk.is_forced)
