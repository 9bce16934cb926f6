"""The outbox on PostgreSQL.

The relay's statements run on a connection of its own whose planner may neither sort nor scan: for `order by id limit n`
PostgreSQL otherwise may read and sort the whole shard. Its plans are made anew each time, so that a plan made for an
empty table does not serve a full one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.message import Outgoing, shard_of
from spoolproof.ports.broker import Spawn
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.leases import Fence
from spoolproof.ports.outbox import Backlog, Page, RowRef
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.statements import filled, load_statements
from spoolproof.stores.dead_letters import columns_of as columns_of_dead_letter
from spoolproof.stores.outbox import Columns, Room, columns_of, outbox_row
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.dead_letters import KEEP
from spoolproof.stores.postgres.services import PostgresServices
from spoolproof.stores.postgres.transaction import PostgresTransaction
from spoolproof.stores.values import storable

RELAY_SETTINGS: Final[Mapping[str, str]] = {
    "enable_sort": "off",
    "enable_bitmapscan": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_custom_plan",
}

SQL = load_statements(__package__, "outbox.sql")
_GIVE_UP = filled(KEEP, {"before": SQL["take_out"], "condition": "exists (select 1 from taken_out)"})

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
        self._rows_max = rows_max
        self._room = Room(rows_max, self._count, clock=clock, spawn=spawn)

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if not records:
            return
        await self._room.take(len(records))
        shards = self._services.own.shards
        rows = [columns_of(outgoing, shards[shard_of(outgoing.message, len(shards))]) for outgoing in records]
        if tx is None:
            sql, values = _insert(rows)
            await self._work.execute(sql, *values)
        elif isinstance(tx, PostgresTransaction):
            sql, values = _insert(rows)
            await tx.write(sql, *values)
        else:
            for row in rows:
                await tx.execute(SQL["append_one"], *row)

    async def has_room(self, messages: int) -> bool:
        return await self._room.has(messages)

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
        rows = [outbox_row(row[5:]) for row in found if row[5] is not None]
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
            SQL["defer"], ref.shard, ref.id, seconds, storable(error), *_values_of(fence)
        )
        return changed == 1

    async def promote_due(self, shards: Collection[int]) -> Sequence[RowRef]:
        is_webhooks = min(shards, default=0) < 0
        most = limits.WEBHOOK_DEFERRED_SECONDS_MAX if is_webhooks else limits.DEFERRED_ROW_SECONDS_MAX
        rows = await self._relay.fetch(SQL["promote_due"], list(shards), limits.PROMOTE_ROWS_MAX, most)
        return [RowRef(shard, id) for shard, id in rows]

    async def give_up(self, ref: RowRef, dead_letter: DeadLetterRecord, fence: Fence) -> bool:
        columns = columns_of_dead_letter(dead_letter, self._services.own_name)
        kept = await self._relay.fetch_value(_GIVE_UP, *columns, ref.shard, ref.id, *_values_of(fence))
        return kept is not None

    async def backlog(self, shards: range | None = None) -> Backlog:
        wanted = shards or range(await self._services.shards_used())
        (row,) = await self._upkeep.fetch(SQL["backlog"], limits.ROWS_COUNTED_MAX, wanted.start, wanted.stop - 1)
        oldest_at: datetime | None = row["oldest_at"]
        return Backlog(rows=row["rows"], deferred=row["deferred"], oldest_at=oldest_at)

    async def _count(self) -> int:
        own = self._services.own.shards
        exact = min(limits.ROWS_COUNTED_MAX, self._rows_max + 1)
        return int(await self._upkeep.fetch_value(SQL["estimate"], exact, own.start, own.stop - 1))


def _values_of(fence: Fence) -> tuple[object, ...]:
    return (fence.kind, fence.name, fence.owner, fence.epoch)


def _next_span(span: int, seconds: float) -> int:
    """Return how many ids to look at next, so that a read is neither slow nor one of thousands."""
    if seconds < _QUICK_SECONDS:
        return span * 2
    return max(_SPAN_IDS // 10, span // 4) if seconds > _SLOW_SECONDS else span


def _insert(rows: Sequence[Columns]) -> tuple[str, Sequence[Any]]:
    if len(rows) == 1:
        return SQL["append_one"], rows[0]
    return SQL["append_many"], [list(column) for column in zip(*rows, strict=True)]
