"""The memory store's dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from spoolproof import limits
from spoolproof.message import Message, earlier_key, message_key
from spoolproof.ports.dead_letters import (
    CLOSED,
    FORCED,
    MOVES,
    AuditEntry,
    DeadLetterDetails,
    DeadLetterFilter,
    DeadLetterRecord,
    DeadLetterState,
    Move,
)
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.dead_letters import SYSTEM_ACTOR, redirected, replay_copy
from spoolproof.stores.memory.inbox import INBOX, has_handled
from spoolproof.stores.memory.transaction import MemoryTransaction, own

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

DEAD_LETTERS = "dead_letter"


@dataclass(frozen=True, slots=True)
class Row(DeadLetterDetails):
    @property
    def closed_at(self) -> datetime | None:
        return self.record.closed_at


_KEPT = (
    *("id", "message", "destination", "routing_key", "first_failed_at", "replays", "replayed_at", "version"),
    "original_body",
)
"""What a further failure of a message leaves as it was."""


class MemoryDeadLetters:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def add(self, record: DeadLetterRecord) -> bool:
        keys = message_key(record.message), earlier_key(record.message)
        async with self._store.transaction() as tx:
            if has_handled(tx.table(INBOX), record.consumer, *keys):
                return False
            self.upsert(tx, record)
            return True

    def upsert(self, tx: MemoryTransaction, record: DeadLetterRecord) -> None:
        """Keep a dead letter, or update the one of its message."""
        known = find(tx, record.consumer, record.message)
        if known is not None:
            record = replace(record, **{name: getattr(known, name) for name in _KEPT})
        record = replace(record, service=self._store.services.own_name)
        self._move(tx, record, "recorded", SYSTEM_ACTOR, record.reason)

    async def get(self, id: str) -> DeadLetterDetails | None:
        row: Row | None = self._store.table(DEAD_LETTERS).get(id)
        return None if row is None else DeadLetterDetails(row.record, row.audit)

    async def search(self, filter: DeadLetterFilter) -> Sequence[DeadLetterRecord]:
        found = [record for record in self.records() if matches(record, filter)]
        return sorted(found, key=lambda record: (record.first_failed_at, record.id))[: filter.limit]

    async def counts(self) -> Mapping[DeadLetterState, int]:
        states = [record.state for record in self.records()]
        return {state: min(states.count(state), limits.ROWS_COUNTED_MAX) for state in DeadLetterState}

    async def replay(self, id: str, actor: str, reason: str, *, queue: str | None = None, force: bool = False) -> bool:
        async with self._store.transaction() as tx:
            return self.replay_in(tx, id, actor, reason, queue=queue, force=force)

    def replay_in(
        self, tx: MemoryTransaction, id: str, actor: str, reason: str, *, queue: str | None, force: bool
    ) -> bool:
        """Replay one in an open transaction."""
        record = self.record(tx, id)
        if record is None:
            return False
        record = redirected(record, queue)
        other = find(tx, record.consumer, record.message)
        if other is not None and other.id != id:
            return False
        moved = replace(record, replays=record.replays + 1, replayed_at=self._store.clock.now())
        if not self._move(tx, moved, "replayed", actor, reason, FORCED if force else None):
            return False
        block = self._store.services.block_of(tx, record.service)
        self._store.outbox.add(tx, replay_copy(record, moved.replays), block)
        return True

    async def discard(self, id: str, actor: str, note: str) -> bool:
        async with self._store.transaction() as tx:
            return self.discard_in(tx, id, actor, note)

    def discard_in(self, tx: MemoryTransaction, id: str, actor: str, note: str) -> bool:
        """Discard one in an open transaction."""
        record = self.record(tx, id)
        return self._move(tx, record and replace(record, note=note), "discarded", actor, note)

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        mine = own(self._store, tx)
        return self._move(mine, find(mine, consumer, message), "resolved", SYSTEM_ACTOR)

    def records(self) -> list[DeadLetterRecord]:
        """Return every one that is committed."""
        return [row.record for row in self._store.table(DEAD_LETTERS).values()]

    def record(self, tx: MemoryTransaction, id: str) -> DeadLetterRecord | None:
        """Return one as a transaction sees it."""
        row: Row | None = tx.table(DEAD_LETTERS).get(id)
        return None if row is None else row.record

    def knows(self, tx: MemoryTransaction, record: DeadLetterRecord) -> bool:
        """Tell whether its id or its message of its consumer is there."""
        return self.record(tx, record.id) is not None or find(tx, record.consumer, record.message) is not None

    def write(self, tx: MemoryTransaction, record: DeadLetterRecord, *entries: AuditEntry) -> None:
        """Write a record, and add to its audit trail."""
        known: Row | None = tx.table(DEAD_LETTERS).get(record.id)
        tx.table(DEAD_LETTERS)[record.id] = Row(record, (*(() if known is None else known.audit), *entries))

    def _move(
        self,
        tx: MemoryTransaction,
        record: DeadLetterRecord | None,
        verb: str,
        actor: str,
        detail: str = "",
        move: Move | None = None,
    ) -> bool:
        """Write a record in the state that a verb moves it to, if it may, with an audit row."""
        move, now = move or MOVES[verb], self._store.clock.now()
        if record is None or record.state not in move.after:
            return False
        moved = replace(record, state=move.to, closed_at=now if move.to in CLOSED else None)
        self.write(tx, moved, AuditEntry(now, actor, verb, detail))
        return True


def matches(record: DeadLetterRecord, filter: DeadLetterFilter) -> bool:
    """Tell whether a record is what a filter asks for, whatever its limit."""
    message = record.message
    alike = (
        (filter.state, record.state),
        (filter.consumer, record.consumer),
        (filter.reason, record.reason),
        (filter.type, message.type),
        (filter.message_id, message.id),
        (filter.fingerprint, record.fingerprint),
        (filter.key, message.key),
    )
    return (
        all(wanted in (None, found) for wanted, found in alike)
        and (filter.text is None or filter.text.lower() in f"{record.error_class}: {record.error}".lower())
        and (filter.since is None or record.last_failed_at >= filter.since)
        and (filter.until is None or record.last_failed_at < filter.until)
        and (filter.ids is None or record.id in filter.ids)
        and (filter.after is None or (record.first_failed_at, record.id) > filter.after)
    )


def find(tx: MemoryTransaction, consumer: str, message: Message) -> DeadLetterRecord | None:
    for row in tx.table(DEAD_LETTERS).values():
        record: DeadLetterRecord = row.record
        if (record.consumer, message_key(record.message)) == (consumer, message_key(message)):
            return record
    return None
