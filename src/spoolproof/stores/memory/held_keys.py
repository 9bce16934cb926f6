"""The memory store's held keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from spoolproof.message import earlier_key, message_key
from spoolproof.ports.dead_letters import AuditEntry, DeadLetterRecord, DeadLetterState
from spoolproof.ports.held_keys import HeldKey, Hold
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.dead_letters import SYSTEM_ACTOR
from spoolproof.stores.memory.dead_letters import DEAD_LETTERS, Row, find
from spoolproof.stores.memory.inbox import INBOX, has_handled
from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import own

HELD_KEYS = "held_key"
_WAITS = (DeadLetterState.OPEN, DeadLetterState.REPLAYING)


@dataclass(frozen=True, slots=True)
class _Held:
    head: str
    since: datetime


class MemoryHeldKeys:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def begin(self, consumer: str, key: str, message_key: str) -> None:
        async with self._store.transaction() as tx:
            for row in tx.table(DEAD_LETTERS).values():
                if (row.record.consumer, _key(row)) == (consumer, message_key):
                    known = tx.table(HELD_KEYS).get((consumer, key))
                    since = self._store.clock.now() if known is None else known.since
                    tx.table(HELD_KEYS)[consumer, key] = _Held(row.record.id, since)

    async def is_held(self, consumer: str, key: str) -> bool:
        return (consumer, key) in self._store.table(HELD_KEYS)

    async def hold_behind(self, record: DeadLetterRecord, most: int) -> Hold:
        consumer, message = record.consumer, record.message
        async with self._store.transaction() as tx:
            letters = tx.table(DEAD_LETTERS)
            if (consumer, message.key) not in tx.table(HELD_KEYS):
                return Hold.FREE
            if len(_behind(letters, consumer, message.key)) >= most:
                return Hold.FULL
            keys = message_key(message), earlier_key(message)
            if find(tx, consumer, message) is None and not has_handled(tx.table(INBOX), consumer, *keys):
                service = self._store.services.own_name
                kept = replace(record, state=DeadLetterState.HELD, service=service)
                letters[record.id] = Row(kept, (AuditEntry(self._store.clock.now(), SYSTEM_ACTOR, "held"),))
            return Hold.HELD

    async def released(self, consumer: str, limit: int) -> Sequence[str]:
        letters = self._store.table(DEAD_LETTERS)
        keys = self._store.table(HELD_KEYS).items()
        return [key for (of, key), held in keys if of == consumer and not _waits(letters, held)][:limit]

    async def next(self, consumer: str, key: str) -> DeadLetterRecord | None:
        return next(iter(_behind(self._store.table(DEAD_LETTERS), consumer, key)), None)

    async def release(self, tx: StoreTransaction, consumer: str, key: str) -> bool:
        mine = own(self._store, tx)
        held, letters = mine.table(HELD_KEYS).get((consumer, key)), mine.table(DEAD_LETTERS)
        if held is None or _waits(letters, held) or _behind(letters, consumer, key):
            return False
        del mine.table(HELD_KEYS)[consumer, key]
        return True

    async def all(self, consumer: str, limit: int) -> Sequence[HeldKey]:
        letters = self._store.table(DEAD_LETTERS)
        return [
            HeldKey(
                consumer=of, key=key, head=held.head, since=held.since, messages=len(_behind(letters, consumer, key))
            )
            for (of, key), held in self._store.table(HELD_KEYS).items()
            if of == consumer
        ][:limit]


def _key(row: Any) -> str | None:
    return message_key(row.record.message)


def _waits(letters: dict[Any, Any], held: _Held) -> bool:
    return held.head in letters and letters[held.head].record.state in _WAITS


def _behind(letters: dict[Any, Any], consumer: str, key: str | None) -> list[DeadLetterRecord]:
    """Return what is held of a key; a dict keeps the order in which they came."""
    records = [row.record for row in letters.values()]
    return [
        one for one in records if (one.consumer, one.message.key, one.state) == (consumer, key, DeadLetterState.HELD)
    ]
