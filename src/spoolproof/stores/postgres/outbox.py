"""The outbox on PostgreSQL.

The relay's statements run on a connection of its own whose planner may neither sort nor scan: for `order by id limit n`
PostgreSQL otherwise may read and sort the whole shard. Its plans are made anew each time, so that a plan made for an
empty table does not serve a full one.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import OutboxFull, StoreUnavailable
from spoolproof.message import Outgoing, message_key, pack_meta, shard_of, unpack_outgoing
from spoolproof.ports.broker import Spawn
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.leases import Fence
from spoolproof.ports.outbox import Backlog, OutboxRow, Page, RowRef
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


_SPAN_IDS = 50_000  #: looked at in one read, however many of them are dead: their pages stay in the server's cache
_QUICK_SECONDS, _SLOW_SECONDS = 0.05, 0.5  #: a read that takes less looks at more next time, and the other way round


@dataclass(frozen=True, slots=True)
class _Mark:
    """Ids were drawn up to `drawn`, and whoever holds one of them has a lower transaction number than `writer`."""

    drawn: int = 0
    writer: int = 0
    server_since: datetime | None = None  #: the start of the server this was read from


class PostgresOutbox:
    """work: for appends without transaction; relay: with RELAY_SETTINGS; upkeep: for everything else."""

    def __init__(
        self,
        work: Pool,
        relay: Pool,
        upkeep: Pool,
        services: PostgresServices,
        *,
        rows_max: int,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        self._work = work
        self._relay = relay
        self._upkeep = upkeep
        self._services = services
        self._clock = clock
        self._mark = self._old_mark = _Mark()
        self._age_at = 0.0
        self._span = _SPAN_IDS
        self._room = _Room(upkeep, services, rows_max, clock, spawn)

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if not records:
            return
        self._room.take(len(records))
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
        return self._room.has(messages)

    async def fetch(
        self, shards: Mapping[int, int], paused: Collection[str], limit: int, skip: Collection[int] = ()
    ) -> Page:
        if not shards:
            return Page([], {})
        newest, span = self._mark, self._span
        # far below the newest id no young writer has any: an old mark does, and names none of them
        is_deep = all(after + span <= self._old_mark.drawn for after in shards.values())
        mark = self._old_mark if is_deep else newest
        started = self._clock.monotonic()
        self._span = _SPAN_IDS  # if this fails: it may have been too much at once
        found = await self._relay.fetch(
            SQL["fetch"],
            list(shards),
            list(shards.values()),
            list(paused),
            limit,
            list(skip),
            span,
            newest.drawn,
            str(newest.writer),
        )
        drawn, server_since, writer, _, running = found[0][:5]
        rows = [_outbox_row(row[5:]) for row in found if row[5] is not None]
        if drawn < newest.drawn or server_since != (newest.server_since or server_since):
            self._mark = self._old_mark = _Mark()  # another server, which may have lost what the last one knew
            return Page(rows, dict.fromkeys(shards, 0))
        if writer is not None:
            self._mark = _Mark(drawn, writer, server_since)
            if started >= self._age_at:
                self._old_mark = newest
                self._age_at = started + limits.LATE_WRITER_SECONDS
        ends = {shard: after + span for shard, after in shards.items()}
        has_more = any(end < self._mark.drawn for end in ends.values())
        if has_more:
            self._span = _next_span(span, self._clock.monotonic() - started)
        for shard, count in Counter(row.ref.shard for row in rows).items():
            if count == limit:
                ends[shard] = max(row.ref.id for row in rows if row.ref.shard == shard)
        seen_to = {shard: min(end, mark.drawn) for shard, end in ends.items()}
        unfinished = frozenset(number for number in running if number < mark.writer)
        return Page(rows, seen_to, unfinished, frozenset(running), has_more)

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
        rows = await self._relay.fetch(
            SQL["promote_due"], list(shards), limits.PROMOTE_ROWS_MAX, limits.DEFERRED_ROW_SECONDS_MAX
        )
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
            message_key(dead_letter.message),
        )
        return kept is not None

    async def backlog(self, shards: range | None = None) -> Backlog:
        wanted = shards or range(await self._services.shards_used())
        (row,) = await self._upkeep.fetch(SQL["backlog"], limits.ROWS_COUNTED_MAX, wanted.start, wanted.stop - 1)
        oldest_at: datetime | None = row["oldest_at"]
        return Backlog(rows=row["rows"], deferred=row["deferred"], oldest_at=oldest_at)


class _Room:
    """How many rows the outbox takes, judged from a count every 5 s and what this process wrote since.

    A publish never waits for the count: it goes by the old figure meanwhile. Rows that were rolled back count until the
    next look: the limit errs on the careful side.
    """

    def __init__(self, upkeep: Pool, services: PostgresServices, rows_max: int, clock: Clock, spawn: Spawn) -> None:
        self._upkeep = upkeep
        self._services = services
        self._rows_max = rows_max
        self._clock = clock
        self._spawn = spawn
        self._rows = 0
        self._taken = 0  #: since the look that runs began
        self._look: asyncio.Task[None] | None = None
        self._look_at = float("-inf")

    def take(self, count: int) -> None:
        """Count `count` rows in. Raises OutboxFull."""
        self._look_when_due()
        if self._rows + count > self._rows_max:
            remedy = "let the relay catch up, or raise SPOOLPROOF_OUTBOX_ROWS_MAX"
            raise OutboxFull(self._rows, self._rows_max, remedy)
        self._rows += count
        self._taken += count

    def has(self, count: int) -> bool:
        """Tell whether `take` would take so many."""
        self._look_when_due()
        return self._rows + count <= self._rows_max

    def give_back(self, count: int) -> None:
        """Count removed rows out."""
        self._rows = max(0, self._rows - count)

    def _look_when_due(self) -> None:
        if self._clock.monotonic() >= self._look_at and (self._look is None or self._look.done()):
            self._taken = 0
            self._look = self._spawn(self._count(), "outbox.estimate")

    async def _count(self) -> None:
        exact = min(limits.ROWS_COUNTED_MAX, self._rows_max + 1)
        own = self._services.own.shards
        try:
            rows = await self._upkeep.fetch_value(SQL["estimate"], exact, own.start, own.stop - 1)
            self._rows = rows + self._taken
        except StoreUnavailable:
            return  # the append itself will say so, or go through a connection that works
        finally:
            self._look_at = self._clock.monotonic() + limits.OUTBOX_ESTIMATE_SECONDS


def _outbox_row(columns: Sequence[Any]) -> OutboxRow:
    shard, id, message_id, destination, type, routing_key, key, meta, body, attempts = columns
    outgoing = unpack_outgoing(
        message_id=message_id,
        type=type,
        key=key,
        meta=meta,
        body=body,
        destination=destination,
        routing_key=routing_key,
    )
    return OutboxRow(RowRef(shard, id), outgoing, attempts)


def _next_span(span: int, seconds: float) -> int:
    """Return how many ids to look at next, so that a read is neither slow nor one of thousands."""
    if seconds < _QUICK_SECONDS:
        return span * 2
    return max(_SPAN_IDS // 10, span // 4) if seconds > _SLOW_SECONDS else span


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
