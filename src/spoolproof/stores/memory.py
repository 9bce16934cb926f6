"""A store in this process's memory: the ports' executable specification, for tests and simulations.

Everything it keeps is one State. A transaction works on a copy and its COMMIT puts the copy in the place of the
original, so rollback is to do nothing. One lock serialises transactions, as SQLite's single writer does: a write
outside a transaction waits while one is open, and waits for ever if the opener awaits it.

The injected clock is the database's clock. Nothing here survives the process. There is no SQL: a handler under test
keeps its business rows in `tx.raw`, a dict that commits and rolls back with the rest.

Must change together: the ports, their conformance suites, and this file.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import OutboxFull, StoreUnavailable, UnsupportedTransaction, WrongDatabase
from spoolproof.ids import Ids
from spoolproof.message import REPLAY_NO, REPLAY_OF, Message, Outgoing, earlier_key, message_key, shard_of
from spoolproof.ports.dead_letters import (
    AuditEntry,
    DeadLetterDetails,
    DeadLetterFilter,
    DeadLetterRecord,
    DeadLetterState,
)
from spoolproof.ports.leases import Fence, Process
from spoolproof.ports.outbox import Backlog, OutboxRow, Page, RowRef
from spoolproof.ports.services import Block
from spoolproof.ports.state import StateRecord
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory_facts import MemoryFacts
from spoolproof.stores.memory_leases import Lease, MemoryLeases, is_held
from spoolproof.stores.memory_services import MemoryServices
from spoolproof.stores.memory_transaction import MemoryTransaction
from spoolproof.stores.memory_wakeup import MemoryWakeUp

_SYSTEM_ACTOR = "spoolproof"
_CLOSED = (DeadLetterState.RESOLVED, DeadLetterState.DISCARDED)


@dataclass(frozen=True, slots=True)
class _Row:
    ref: RowRef
    outgoing: Outgoing
    created_at: datetime
    attempts: int = 0
    available_at: datetime | None = None  #: None = ready

    @property
    def order(self) -> tuple[str, str | None]:
        return (self.outgoing.destination, self.outgoing.message.key)


@dataclass(slots=True)
class MemoryState:
    """Everything the store keeps. Values are immutable, so a copy of the dicts is a copy of the state."""

    last_id: int = 0
    outbox: dict[int, _Row] = field(default_factory=dict)  #: in id order
    inbox: dict[tuple[str, str], datetime] = field(default_factory=dict)
    dead_letters: dict[str, DeadLetterRecord] = field(default_factory=dict)
    audit: dict[str, tuple[AuditEntry, ...]] = field(default_factory=dict)
    leases: dict[tuple[str, str], Lease] = field(default_factory=dict)
    processes: dict[UUID, tuple[Process, datetime]] = field(default_factory=dict)
    facts: dict[tuple[str, str], StateRecord] = field(default_factory=dict)
    services: dict[str, Block] = field(default_factory=dict)
    business: dict[Any, Any] = field(default_factory=dict)

    def copied(self) -> MemoryState:
        return MemoryState(
            self.last_id,
            dict(self.outbox),
            dict(self.inbox),
            dict(self.dead_letters),
            dict(self.audit),
            dict(self.leases),
            dict(self.processes),
            dict(self.facts),
            dict(self.services),
            copy.deepcopy(self.business),  # the user's values may be mutable
        )


class MemoryStore:
    """All parts of the store port, on one State."""

    def __init__(self, *, clock: Clock, ids: Ids, outbox_rows_max: int) -> None:
        self.clock = clock
        self.outbox_rows_max = outbox_rows_max
        self.name = f"memory://{ids.uuid7()}"  # tells two stores of one process apart in messages
        self.services = MemoryServices(self)
        self.outbox = MemoryOutbox(self)
        self.inbox = MemoryInbox(self)
        self.dead_letters = MemoryDeadLetters(self)
        self.leases = MemoryLeases(self)
        self.retention = MemoryRetention(self)
        self.state = MemoryFacts(self)
        self.migrations = MemoryMigrations()
        self.wakeup = MemoryWakeUp()
        self._state = MemoryState()
        self._writer = asyncio.Lock()
        self._is_started = False

    async def start(self) -> None:
        self._is_started = True

    async def stop(self) -> None:
        self._is_started = False

    async def ping(self) -> None:
        self.committed()

    def is_conflict(self, error: BaseException) -> bool:
        return False

    def committed(self) -> MemoryState:
        """Return what readers see."""
        if not self._is_started:
            raise StoreUnavailable(f"{self.name} is not started")
        return self._state

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        self.committed()
        async with self._writer:
            tx = MemoryTransaction(self, self.committed().copied())
            try:
                yield tx
                self.committed()  # stopped meanwhile: the COMMIT has nowhere to go
                self._state = tx.state
            finally:
                tx.is_open = False

    async def adopt(self, handle: object) -> StoreTransaction:
        if not isinstance(handle, MemoryTransaction):
            raise UnsupportedTransaction(handle, ["spoolproof.stores.memory.MemoryTransaction"])
        state_of(self, handle)
        return handle


def state_of(store: MemoryStore, tx: StoreTransaction) -> MemoryState:
    """Return the state an open transaction of `store` works on."""
    if not isinstance(tx, MemoryTransaction):
        raise UnsupportedTransaction(tx, ["spoolproof.stores.memory.MemoryTransaction"])
    if tx.store is not store:
        raise WrongDatabase(f"the transaction belongs to {tx.store.name}, the outbox to {store.name}")
    return tx.state


class MemoryOutbox:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if tx is None:
            async with self._store.transaction() as own:
                self.add(own.state, records)
        else:
            self.add(state_of(self._store, tx), records)

    def add(self, state: MemoryState, records: Sequence[Outgoing], block: Block | None = None) -> None:
        maximum = self._store.outbox_rows_max
        if records and len(state.outbox) + len(records) > maximum:
            raise OutboxFull(len(state.outbox), maximum)
        shards = (block or self._store.services.own).shards
        for outgoing in records:
            state.last_id += 1
            ref = RowRef(shards[shard_of(outgoing.message, len(shards))], state.last_id)
            state.outbox[ref.id] = _Row(ref, outgoing, self._store.clock.now())

    async def has_room(self, messages: int) -> bool:
        return len(self._store.committed().outbox) + messages <= self._store.outbox_rows_max

    async def fetch(
        self, shards: Mapping[int, int], paused: Collection[str], limit: int, skip: Collection[int] = ()
    ) -> Page:
        state = self._store.committed()
        found: dict[int, list[OutboxRow]] = {shard: [] for shard in shards}
        held: set[tuple[str, str | None]] = set()
        for row in state.outbox.values():
            destination, key = row.order
            if row.available_at is not None:
                if key is not None:
                    held.add(row.order)
            elif (
                row.ref.shard in shards
                and row.ref.id > shards[row.ref.shard]
                and row.order not in held
                and destination not in paused
                and f"{destination} {row.outgoing.message.type}" not in paused
                and row.ref.id not in skip
                and len(found[row.ref.shard]) < limit
            ):
                found[row.ref.shard].append(OutboxRow(row.ref, row.outgoing, row.attempts))
        full = {shard: rows[-1].ref.id for shard, rows in found.items() if rows and len(rows) == limit}
        seen_to = {shard: full.get(shard, state.last_id) for shard in shards}  # one writer: ids come in commit order
        return Page([row for rows in found.values() for row in rows], seen_to)

    async def remove(self, refs: Sequence[RowRef]) -> int:
        async with self._store.transaction() as tx:
            return sum(tx.state.outbox.pop(ref.id, None) is not None for ref in refs)

    async def defer(self, ref: RowRef, seconds: float, error: str, fence: Fence) -> bool:
        async with self._store.transaction() as tx:
            row = tx.state.outbox.get(ref.id)
            if row is None or not is_held(tx.state, fence):
                return False
            available_at = self._store.clock.now() + timedelta(seconds=seconds)
            tx.state.outbox[ref.id] = replace(row, attempts=row.attempts + 1, available_at=available_at)
            return True

    async def promote_due(self, shards: Collection[int]) -> Sequence[RowRef]:
        async with self._store.transaction() as tx:
            now = self._store.clock.now()
            due = [
                row
                for row in tx.state.outbox.values()
                if row.ref.shard in shards and row.available_at is not None and row.available_at <= now
            ]
            tx.state.outbox.update({row.ref.id: replace(row, available_at=None) for row in due})
            return [row.ref for row in due]

    async def give_up(self, ref: RowRef, dead_letter: DeadLetterRecord, fence: Fence) -> bool:
        async with self._store.transaction() as tx:
            if ref.id not in tx.state.outbox or not is_held(tx.state, fence):
                return False
            del tx.state.outbox[ref.id]
            self._store.dead_letters.upsert(tx.state, dead_letter)
            return True

    async def backlog(self, shards: range | None = None) -> Backlog:
        outbox = self._store.committed().outbox
        rows = [row for row in outbox.values() if shards is None or row.ref.shard in shards]
        return Backlog(
            rows=min(len(rows), limits.ROWS_COUNTED_MAX),
            deferred=min(sum(row.available_at is not None for row in rows), limits.ROWS_COUNTED_MAX),
            oldest_at=min((row.created_at for row in rows), default=None),
        )


class MemoryInbox:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def record(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> bool:
        inbox = state_of(self._store, tx).inbox
        if (consumer, key) in inbox or (consumer, earlier) in inbox:
            return False
        inbox[consumer, key] = self._store.clock.now()
        return True

    async def contains(self, consumer: str, key: str, earlier: str | None = None) -> bool:
        inbox = self._store.committed().inbox
        return (consumer, key) in inbox or (consumer, earlier) in inbox


class MemoryDeadLetters:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def add(self, record: DeadLetterRecord) -> bool:
        async with self._store.transaction() as tx:
            if any((record.consumer, key(record.message)) in tx.state.inbox for key in (message_key, earlier_key)):
                return False
            self.upsert(tx.state, record)
            return True

    def upsert(self, state: MemoryState, record: DeadLetterRecord) -> None:
        record = replace(record, service=self._store.services.own_name)
        known = _find(state, record.consumer, record.message)
        if known is not None:
            record = replace(
                record,
                id=known.id,
                first_failed_at=known.first_failed_at,
                replays=known.replays,
                state=DeadLetterState.OPEN,
                closed_at=None,
            )
        self._put(state, record, "recorded", _SYSTEM_ACTOR, record.reason)

    async def get(self, id: str) -> DeadLetterDetails | None:
        state = self._store.committed()
        record = state.dead_letters.get(id)
        return None if record is None else DeadLetterDetails(record, state.audit[id])

    async def search(self, filter: DeadLetterFilter) -> Sequence[DeadLetterRecord]:
        found = [
            record
            for record in self._store.committed().dead_letters.values()
            if filter.state in (None, record.state)
            and filter.consumer in (None, record.consumer)
            and filter.reason in (None, record.reason)
            and filter.type in (None, record.message.type)
            and filter.message_id in (None, record.message.id)
        ]
        return sorted(found, key=lambda record: record.first_failed_at)[: filter.limit]

    async def counts(self) -> Mapping[DeadLetterState, int]:
        states = [record.state for record in self._store.committed().dead_letters.values()]
        return {state: min(states.count(state), limits.ROWS_COUNTED_MAX) for state in DeadLetterState}

    async def replay(self, id: str, actor: str, reason: str) -> bool:
        async with self._store.transaction() as tx:
            record = tx.state.dead_letters.get(id)
            if record is None or record.state is not DeadLetterState.OPEN:
                return False
            replays = record.replays + 1
            headers = {**record.message.headers, REPLAY_OF: id, REPLAY_NO: replays}
            message = msgspec.structs.replace(record.message, headers=headers)
            outgoing = Outgoing(message=message, destination=record.destination, routing_key=record.routing_key)
            self._store.outbox.add(tx.state, [outgoing], self._store.services.block_of(tx.state, record.service))
            replaying = replace(record, state=DeadLetterState.REPLAYING, replays=replays)
            self._put(tx.state, replaying, "replayed", actor, reason)
            return True

    async def discard(self, id: str, actor: str, note: str) -> bool:
        async with self._store.transaction() as tx:
            record = tx.state.dead_letters.get(id)
            if record is None or record.state in _CLOSED:
                return False
            self._close(tx.state, replace(record, note=note), DeadLetterState.DISCARDED, actor, note)
            return True

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        state = state_of(self._store, tx)
        record = _find(state, consumer, message)
        if record is None or record.state in _CLOSED:
            return False
        self._close(state, record, DeadLetterState.RESOLVED, _SYSTEM_ACTOR, "")
        return True

    def _close(
        self, state: MemoryState, record: DeadLetterRecord, end: DeadLetterState, actor: str, detail: str
    ) -> None:
        self._put(state, replace(record, state=end, closed_at=self._store.clock.now()), end.value, actor, detail)

    def _put(self, state: MemoryState, record: DeadLetterRecord, verb: str, actor: str, detail: str) -> None:
        entry = AuditEntry(self._store.clock.now(), actor, verb, detail)
        state.dead_letters[record.id] = record
        state.audit[record.id] = (*state.audit.get(record.id, ()), entry)


def _find(state: MemoryState, consumer: str, message: Message) -> DeadLetterRecord | None:
    for record in state.dead_letters.values():
        if (record.consumer, message_key(record.message)) == (consumer, message_key(message)):
            return record
    return None


class MemoryRetention:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def prune(self, *, inbox_seconds: float, closed_seconds: float, limit: int) -> int:
        async with self._store.transaction() as tx:
            state, now = tx.state, self._store.clock.now()
            handled_before, closed_before = (now - timedelta(seconds=age) for age in (inbox_seconds, closed_seconds))
            handled = [pair for pair, at in state.inbox.items() if at < handled_before][:limit]
            closed = [
                record.id
                for record in state.dead_letters.values()
                if record.state in _CLOSED and record.closed_at is not None and record.closed_at < closed_before
            ][:limit]
            for pair in handled:
                del state.inbox[pair]
            for id in closed:
                del state.dead_letters[id], state.audit[id]
            return len(handled) + len(closed)


class MemoryMigrations:
    """There is no schema to bring up to date."""

    needed = 0

    async def found(self) -> int:
        return self.needed

    async def apply(self) -> list[str]:
        return []

    def sql(self, above: int = 0) -> str:
        return ""
