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
    MOVES,
    AuditEntry,
    DeadLetterDetails,
    DeadLetterFilter,
    DeadLetterRecord,
    DeadLetterState,
)
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.dead_letters import SYSTEM_ACTOR, replay_copy
from spoolproof.stores.memory.inbox import INBOX, has_handled
from spoolproof.stores.memory.transaction import MemoryTransaction, own

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

DEAD_LETTERS = "dead_letter"


@dataclass(frozen=True, slots=True)
class _Row(DeadLetterDetails):
    @property
    def closed_at(self) -> datetime | None:
        return self.record.closed_at


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
        known = _find(tx, record.consumer, record.message)
        if known is not None:
            record = replace(record, id=known.id, first_failed_at=known.first_failed_at, replays=known.replays)
        record = replace(record, service=self._store.services.own_name)
        self._move(tx, record, "recorded", SYSTEM_ACTOR, record.reason)

    async def get(self, id: str) -> DeadLetterDetails | None:
        row: _Row | None = self._store.table(DEAD_LETTERS).get(id)
        return None if row is None else DeadLetterDetails(row.record, row.audit)

    async def search(self, filter: DeadLetterFilter) -> Sequence[DeadLetterRecord]:
        found = [
            record
            for record in self._records()
            if filter.state in (None, record.state)
            and filter.consumer in (None, record.consumer)
            and filter.reason in (None, record.reason)
            and filter.type in (None, record.message.type)
            and filter.message_id in (None, record.message.id)
        ]
        return sorted(found, key=lambda record: record.first_failed_at)[: filter.limit]

    async def counts(self) -> Mapping[DeadLetterState, int]:
        states = [record.state for record in self._records()]
        return {state: min(states.count(state), limits.ROWS_COUNTED_MAX) for state in DeadLetterState}

    async def replay(self, id: str, actor: str, reason: str) -> bool:
        async with self._store.transaction() as tx:
            record = _record(tx, id)
            if not self._move(tx, record and replace(record, replays=record.replays + 1), "replayed", actor, reason):
                return False
            assert record is not None  # it was just moved
            block = self._store.services.block_of(tx, record.service)
            self._store.outbox.add(tx, replay_copy(record, record.replays + 1), block)
            return True

    async def discard(self, id: str, actor: str, note: str) -> bool:
        async with self._store.transaction() as tx:
            record = _record(tx, id)
            return self._move(tx, record and replace(record, note=note), "discarded", actor, note)

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        mine = own(self._store, tx)
        return self._move(mine, _find(mine, consumer, message), "resolved", SYSTEM_ACTOR)

    def _records(self) -> list[DeadLetterRecord]:
        return [row.record for row in self._store.table(DEAD_LETTERS).values()]

    def _move(
        self, tx: MemoryTransaction, record: DeadLetterRecord | None, verb: str, actor: str, detail: str = ""
    ) -> bool:
        """Write a record in the state that a verb moves it to, if it may, with an audit row."""
        move, now = MOVES[verb], self._store.clock.now()
        if record is None or record.state not in move.after:
            return False
        moved = replace(record, state=move.to, closed_at=now if move.to in CLOSED else None)
        known = tx.table(DEAD_LETTERS).get(record.id)
        audit = () if known is None else known.audit
        tx.table(DEAD_LETTERS)[record.id] = _Row(moved, (*audit, AuditEntry(now, actor, verb, detail)))
        return True


def _record(tx: MemoryTransaction, id: str) -> DeadLetterRecord | None:
    row: _Row | None = tx.table(DEAD_LETTERS).get(id)
    return None if row is None else row.record


def _find(tx: MemoryTransaction, consumer: str, message: Message) -> DeadLetterRecord | None:
    for row in tx.table(DEAD_LETTERS).values():
        record: DeadLetterRecord = row.record
        if (record.consumer, message_key(record.message)) == (consumer, message_key(message)):
            return record
    return None
