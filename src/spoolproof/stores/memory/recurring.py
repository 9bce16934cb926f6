"""The memory store's recurring runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from spoolproof.message import Outgoing, message_key
from spoolproof.ports.recurring import Found, RecurringRow
from spoolproof.stores.memory.dead_letters import DEAD_LETTERS
from spoolproof.stores.memory.inbox import INBOX
from spoolproof.stores.memory.store import MemoryStore

RECURRING = "recurring"


@dataclass(frozen=True, slots=True)
class _Kept:
    row: RecurringRow
    last_key: str | None = None


class MemoryRecurring:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def find(self, service: str | None) -> Found:
        kept: list[_Kept] = [one for one in self._store.table(RECURRING).values() if service in (None, one.row.service)]
        rows = [replace(one.row, outcome=self._outcome(one)) for one in kept]
        return Found(now=self._store.clock.now(), rows=sorted(rows, key=lambda row: (row.next_at, row.name)))

    def _outcome(self, kept: _Kept) -> str | None:
        place = (kept.row.name, kept.last_key)
        if place in self._store.table(INBOX):
            return "handled"
        for letter in self._store.table(DEAD_LETTERS).values():
            if (letter.record.consumer, message_key(letter.record.message)) == place:
                return str(letter.record.state.value)
        return None

    async def declare(
        self, service: str, name: str, expression: str, next_at: datetime, *, stale_seconds: float
    ) -> None:
        async with self._store.transaction() as tx:
            now, table = self._store.clock.now(), tx.table(RECURRING)
            kept: _Kept | None = table.get((service, name))
            if kept is None:
                row = RecurringRow(service=service, name=name, expression=expression, next_at=next_at, declared_at=now)
                table[service, name] = _Kept(row)
            elif kept.row.expression == expression:
                table[service, name] = replace(kept, row=replace(kept.row, declared_at=now))
            elif kept.row.declared_at <= now - timedelta(seconds=stale_seconds):
                row = replace(kept.row, expression=expression, next_at=next_at, declared_at=now)
                table[service, name] = replace(kept, row=row)

    async def advance(self, row: RecurringRow, next_at: datetime, run: Outgoing) -> bool:
        async with self._store.transaction() as tx:
            kept: _Kept | None = tx.table(RECURRING).get((row.service, row.name))
            if kept is None or (kept.row.next_at, kept.row.expression) != (row.next_at, row.expression):
                return False
            moved = replace(kept.row, next_at=next_at, last_at=row.next_at)
            tx.table(RECURRING)[row.service, row.name] = _Kept(moved, message_key(run.message))
            self._store.outbox.add(tx, run, self._store.services.own)
            return True

    async def forget(self, service: str, seconds: float) -> Sequence[str]:
        since = self._store.clock.now() - timedelta(seconds=seconds)
        async with self._store.transaction() as tx:
            table: dict[tuple[str, str], _Kept] = tx.table(RECURRING)
            names = [name for (of, name), kept in table.items() if of == service and kept.row.declared_at <= since]
            for name in names:
                del table[service, name]
            return names
