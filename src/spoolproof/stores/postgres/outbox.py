"""The outbox on PostgreSQL.

The relay's statements run on a connection of its own whose planner may neither sort nor scan: for `order by id limit n`
PostgreSQL otherwise may read and sort the whole shard. Its plans are made anew each time, so that a plan made for an
empty table does not serve a full one.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import OutboxFull, StoreUnavailable
from spoolproof.message import Outgoing, pack_meta, shard_of, unpack_outgoing
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.leases import Fence
from spoolproof.ports.outbox import Backlog, OutboxRow, RowRef
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.dead_letters import failure_values, storable
from spoolproof.stores.postgres.services import PostgresServices
from spoolproof.stores.postgres.statements import statements
from spoolproof.stores.postgres.transaction import PostgresTransaction

RELAY_SETTINGS: Final[Mapping[str, str]] = {
    "enable_sort": "off",
    "enable_bitmapscan": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_custom_plan",
}

SQL = statements("outbox.sql")

_Columns = tuple[int, str, str, str, str | None, str | None, str, bytes]


class PostgresOutbox:
    """work: for appends without transaction; relay: with RELAY_SETTINGS; upkeep: for everything else."""

    def __init__(
        self, work: Pool, relay: Pool, upkeep: Pool, services: PostgresServices, *, rows_max: int, clock: Clock
    ) -> None:
        self._work = work
        self._relay = relay
        self._upkeep = upkeep
        self._services = services
        self._room = _Room(upkeep, services, rows_max, clock)

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if not records:
            return
        await self._room.take(len(records))
        shards = self._services.own.shards
        rows = [_columns(outgoing, shards) for outgoing in records]
        if tx is None:
            sql, values = _insert(rows)
            await self._work.execute(sql, *values)
        elif isinstance(tx, PostgresTransaction):
            sql, values = _insert(rows)
            await tx.write(sql, *values)
        else:
            await tx.execute(SQL["append_json"], _as_json(rows))

    async def has_room(self, messages: int) -> bool:
        return await self._room.has(messages)

    async def fetch(
        self, shards: Mapping[int, int], paused: Collection[str], limit: int, skip: Collection[int] = ()
    ) -> Sequence[OutboxRow]:
        if not shards:
            return []
        rows = await self._relay.fetch(
            SQL["fetch"], list(shards), list(shards.values()), list(paused), limit, list(skip)
        )
        return [
            OutboxRow(
                RowRef(shard, id),
                unpack_outgoing(
                    message_id=message_id,
                    type=type,
                    key=key,
                    meta=meta,
                    body=body,
                    destination=destination,
                    routing_key=routing_key,
                ),
                attempts,
            )
            for shard, id, message_id, destination, type, routing_key, key, meta, body, attempts in rows
        ]

    async def remove(self, refs: Sequence[RowRef]) -> int:
        if not refs:
            return 0
        removed = await self._relay.execute(SQL["remove"], [ref.shard for ref in refs], [ref.id for ref in refs])
        self._room.give_back(removed)
        return removed

    async def defer(self, ref: RowRef, seconds: float, error: str, fence: Fence) -> bool:
        changed = await self._relay.execute(
            SQL["defer"], ref.shard, ref.id, seconds, storable(error), fence.kind, fence.name, fence.owner, fence.epoch
        )
        return changed == 1

    async def promote_due(self, shards: Collection[int]) -> Sequence[RowRef]:
        rows = await self._relay.fetch(SQL["promote_due"], list(shards), limits.PROMOTE_ROWS_MAX)
        return [RowRef(shard, id) for shard, id in rows]

    async def give_up(self, ref: RowRef, dead_letter: DeadLetterRecord, fence: Fence) -> bool:
        kept = await self._relay.fetch_value(
            SQL["give_up"],
            ref.shard,
            ref.id,
            fence.kind,
            fence.name,
            fence.owner,
            fence.epoch,
            dead_letter.id,
            dead_letter.consumer,
            dead_letter.destination,
            dead_letter.routing_key,
            *failure_values(dead_letter),
            self._services.own_name,
        )
        return kept is not None

    async def backlog(self, shards: range | None = None) -> Backlog:
        wanted = shards or range(await self._services.shards_used())
        (row,) = await self._upkeep.fetch(SQL["backlog"], limits.ROWS_COUNTED_MAX, wanted.start, wanted.stop - 1)
        oldest_at: datetime | None = row["oldest_at"]
        return Backlog(rows=row["rows"], deferred=row["deferred"], oldest_at=oldest_at)


class _Room:
    """How many rows the outbox takes, judged from a count every 5 s and what this process wrote since.

    Rows that were rolled back count until the next look: the limit errs on the careful side.
    """

    def __init__(self, upkeep: Pool, services: PostgresServices, rows_max: int, clock: Clock) -> None:
        self._upkeep = upkeep
        self._services = services
        self._rows_max = rows_max
        self._clock = clock
        self._rows = 0
        self._look_at = float("-inf")

    async def take(self, count: int) -> None:
        """Count `count` rows in. Raises OutboxFull."""
        await self._look_when_due()
        if self._rows + count > self._rows_max:
            remedy = "let the relay catch up, or raise SPOOLPROOF_OUTBOX_ROWS_MAX"
            raise OutboxFull(self._rows, self._rows_max, remedy)
        self._rows += count

    async def has(self, count: int) -> bool:
        """Tell whether `take` would take so many."""
        await self._look_when_due()
        return self._rows + count <= self._rows_max

    def give_back(self, count: int) -> None:
        """Count removed rows out."""
        self._rows = max(0, self._rows - count)

    async def _look_when_due(self) -> None:
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + limits.OUTBOX_ESTIMATE_SECONDS  # first: others go on with the old figure meanwhile
            await self._look()

    async def _look(self) -> None:
        exact = min(limits.ROWS_COUNTED_MAX, self._rows_max + 1)
        own = self._services.own.shards
        try:
            self._rows = await self._upkeep.fetch_value(SQL["estimate"], exact, own.start, own.stop - 1)
        except StoreUnavailable:
            return  # the append itself will say so, or go through a connection that works


def _columns(outgoing: Outgoing, shards: range) -> _Columns:
    message = outgoing.message
    return (
        shards[shard_of(message, len(shards))],
        message.id,
        outgoing.destination,
        message.type,
        outgoing.routing_key,
        message.key,
        pack_meta(message, may_be_unrouted=outgoing.may_be_unrouted),
        message.body,
    )


def _insert(rows: Sequence[_Columns]) -> tuple[str, Sequence[Any]]:
    if len(rows) == 1:
        return SQL["append_one"], rows[0]
    return SQL["append_many"], [list(column) for column in zip(*rows, strict=True)]


def _as_json(rows: Sequence[_Columns]) -> str:
    items = [(*row[:6], msgspec.Raw(row[6].encode()), base64.b64encode(row[7]).decode()) for row in rows]
    return msgspec.json.encode(items).decode()
