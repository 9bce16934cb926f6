"""The memory store's review items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from spoolproof.ports.reviews import ReviewCount, ReviewDetails, ReviewEvent, ReviewFilter, ReviewItem, ReviewState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import own

ITEMS, EVENTS = "review_item", "review_event"


@dataclass(frozen=True, slots=True)
class _Row:
    item: ReviewItem
    message: bytes | None

    @property
    def resolved_at(self) -> datetime | None:
        return self.item.resolved_at


@dataclass(frozen=True, slots=True)
class _Event:
    event: ReviewEvent
    closed_at: datetime | None = None


class MemoryReviews:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def add(
        self, tx: StoreTransaction, item: ReviewItem, event: ReviewEvent, message: bytes | None = None
    ) -> bool:
        if await self.lock_open(tx, item.service, item.kind, item.subject) is not None:
            return False
        mine = own(self._store, tx)
        mine.table(ITEMS)[item.id] = _Row(item, message)
        mine.table(EVENTS)[event.review_id, event.n] = _Event(event)
        return True

    async def lock(self, tx: StoreTransaction, id: str) -> ReviewDetails | None:
        row: _Row | None = own(self._store, tx).table(ITEMS).get(id)
        return None if row is None else ReviewDetails(row.item, (), row.message)

    async def lock_open(self, tx: StoreTransaction, service: str, kind: str, subject: str) -> ReviewItem | None:
        wanted = (service, kind, subject, ReviewState.OPEN)
        items = [row.item for row in own(self._store, tx).table(ITEMS).values()]
        return next((one for one in items if (one.service, one.kind, one.subject, one.state) == wanted), None)

    async def write(self, tx: StoreTransaction, item: ReviewItem, event: ReviewEvent) -> None:
        mine = own(self._store, tx)
        mine.table(ITEMS)[item.id] = replace(mine.table(ITEMS)[item.id], item=item)
        events = mine.table(EVENTS)
        events[event.review_id, event.n] = _Event(event)
        if item.resolved_at is not None:
            for key, kept in list(events.items()):
                if key[0] == item.id:
                    events[key] = replace(kept, closed_at=item.resolved_at)

    async def get(self, id: str) -> ReviewDetails | None:
        row: _Row | None = self._store.table(ITEMS).get(id)
        events = sorted((key[1], kept.event) for key, kept in self._store.table(EVENTS).items() if key[0] == id)
        if row is None and not events:
            return None
        found = [event for _, event in events]
        return ReviewDetails(None, found) if row is None else ReviewDetails(row.item, found, row.message)

    async def search(self, filter: ReviewFilter) -> Sequence[ReviewItem]:
        items = [row.item for row in self._store.table(ITEMS).values() if _matches(row.item, filter)]
        return sorted(items, key=lambda item: (item.due_at, item.id))[: filter.limit]

    async def counts(self, service: str, now: datetime) -> Sequence[ReviewCount]:
        groups: dict[tuple[str, bool], list[ReviewItem]] = {}
        for row in self._store.table(ITEMS).values():
            item: ReviewItem = row.item
            if item.service == service and item.state is ReviewState.OPEN:
                is_claimed = item.claim_until is not None and item.claim_until > now
                groups.setdefault((item.kind, is_claimed), []).append(item)
        return [
            ReviewCount(*key, len(items), sum(one.due_at <= now for one in items), min(one.opened_at for one in items))
            for key, items in sorted(groups.items())
        ]

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        known = {*self._store.table(ITEMS), *(id for id, _ in self._store.table(EVENTS))}
        return sorted(id for id in known if id > after)[:limit]


def _matches(item: ReviewItem, filter: ReviewFilter) -> bool:
    asked = [(getattr(filter, name), getattr(item, name)) for name in ("service", "kind", "subject", "state")]
    is_due = filter.due_by is None or item.due_at <= filter.due_by
    is_behind = filter.after is None or (item.due_at, item.id) > filter.after
    return is_due and is_behind and all(wanted in (None, found) for wanted, found in asked)
