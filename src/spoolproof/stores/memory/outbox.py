"""The memory store's outbox."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from spoolproof import limits
from spoolproof.destination import Destination, Kind, to_endpoint
from spoolproof.message import REPLAY_OF, Outgoing, shard_of
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.leases import Fence
from spoolproof.ports.outbox import Backlog, OutboxRow, Page, RowRef
from spoolproof.ports.services import Block
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory.leases import is_held
from spoolproof.stores.memory.transaction import MemoryTransaction, own
from spoolproof.stores.memory.webhooks import ENDPOINTS, is_wanted
from spoolproof.stores.outbox import check_room

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

OUTBOX = "outbox"


@dataclass(frozen=True, slots=True)
class _Row:
    ref: RowRef
    outgoing: Outgoing
    created_at: datetime
    attempts: int = 0
    available_at: datetime | None = None  #: None = ready

    @property
    def order(self) -> tuple[Destination, str | None]:
        return (self.outgoing.destination, self.outgoing.message.key)


class MemoryOutbox:
    def __init__(self, store: MemoryStore, *, rows_max: int) -> None:
        self._store = store
        self.rows_max = rows_max

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if tx is None:
            async with self._store.transaction() as mine:
                self._append(mine, records)
        else:
            self._append(own(self._store, tx), records)

    def _append(self, tx: MemoryTransaction, records: Sequence[Outgoing]) -> None:
        if records:
            check_room(len(tx.table(OUTBOX)), len(records), self.rows_max)
        for outgoing in records:
            self.add(tx, outgoing, self._store.services.own)

    def add(self, tx: MemoryTransaction, outgoing: Outgoing, block: Block) -> None:
        """Add a row to a service's block, whether there is room or not, and one for each endpoint that wants it."""
        shard = block.shards[shard_of(outgoing.message, block.size)]
        if outgoing.destination.kind is Kind.WEBHOOK:
            shard = block.webhook_shard(shard)
        tx.tables.last_id += 1
        ref = RowRef(shard, tx.tables.last_id)
        tx.table(OUTBOX)[ref.id] = _Row(ref, outgoing, self._store.clock.now())
        if outgoing.destination.kind is Kind.EVENTS and REPLAY_OF not in outgoing.message.headers:
            for name, endpoint in sorted(tx.table(ENDPOINTS).items()):
                if is_wanted(endpoint, outgoing.message.type):
                    message = msgspec.structs.replace(outgoing.message, key=None)
                    self.add(tx, Outgoing(message=message, destination=to_endpoint(name)), block)

    async def has_room(self, messages: int) -> bool:
        return len(self._store.table(OUTBOX)) + messages <= self.rows_max

    async def fetch(
        self, shards: Mapping[int, int], paused: Collection[str], limit: int, skip: Collection[int] = ()
    ) -> Page:
        outbox: dict[int, _Row] = self._store.table(OUTBOX)
        found: dict[int, list[OutboxRow]] = {shard: [] for shard in shards}
        held: set[tuple[Destination, str | None]] = set()
        for row in outbox.values():
            destination, key = row.order
            if row.available_at is not None:
                if key is not None:
                    held.add(row.order)
            elif (
                row.ref.shard in shards
                and row.ref.id > shards[row.ref.shard]
                and row.order not in held
                and str(destination) not in paused
                and f"{destination} {row.outgoing.message.type}" not in paused
                and row.ref.id not in skip
                and len(found[row.ref.shard]) < limit
            ):
                found[row.ref.shard].append(OutboxRow(row.ref, row.outgoing, row.attempts))
        full = {shard: rows[-1].ref.id for shard, rows in found.items() if rows and len(rows) == limit}
        last_id = self._store.committed().last_id
        seen_to = {shard: full.get(shard, last_id) for shard in shards}  # one writer: ids come in commit order
        return Page([row for rows in found.values() for row in rows], seen_to)

    async def remove(self, refs: Sequence[RowRef]) -> int:
        async with self._store.transaction() as tx:
            return sum(tx.table(OUTBOX).pop(ref.id, None) is not None for ref in refs)

    async def defer(self, ref: RowRef, seconds: float, error: str, fence: Fence) -> bool:
        async with self._store.transaction() as tx:
            row = tx.table(OUTBOX).get(ref.id)
            if row is None or not is_held(tx, fence):
                return False
            available_at = self._store.clock.now() + timedelta(seconds=seconds)
            tx.table(OUTBOX)[ref.id] = replace(row, attempts=row.attempts + 1, available_at=available_at)
            return True

    async def promote_due(self, shards: Collection[int]) -> Sequence[RowRef]:
        async with self._store.transaction() as tx:
            now = self._store.clock.now()
            due = [
                row
                for row in tx.table(OUTBOX).values()
                if row.ref.shard in shards and row.available_at is not None and row.available_at <= now
            ]
            tx.table(OUTBOX).update({row.ref.id: replace(row, available_at=None) for row in due})
            return [row.ref for row in due]

    async def give_up(self, ref: RowRef, dead_letter: DeadLetterRecord, fence: Fence) -> bool:
        async with self._store.transaction() as tx:
            if ref.id not in tx.table(OUTBOX) or not is_held(tx, fence):
                return False
            del tx.table(OUTBOX)[ref.id]
            self._store.dead_letters.upsert(tx, dead_letter)
            return True

    async def backlog(self, shards: range | None = None) -> Backlog:
        outbox: dict[int, _Row] = self._store.table(OUTBOX)
        rows = [row for row in outbox.values() if (row.ref.shard >= 0 if shards is None else row.ref.shard in shards)]
        return Backlog(
            rows=min(len(rows), limits.ROWS_COUNTED_MAX),
            deferred=min(sum(row.available_at is not None for row in rows), limits.ROWS_COUNTED_MAX),
            oldest_at=min((row.created_at for row in rows), default=None),
        )
