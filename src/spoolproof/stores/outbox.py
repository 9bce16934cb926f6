"""What every store does alike with its outbox: the columns of a row, and how many rows it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import LimitReached, OutboxFull, StoreUnavailable
from spoolproof.message import Outgoing, pack_meta, unpack_outgoing
from spoolproof.ports.broker import Spawn
from spoolproof.ports.outbox import OutboxRow, RowRef

COLUMNS = ("shard", "message_id", "destination", "type", "routing_key", "ordering_key", "headers", "body")
"""What `columns_of` returns; `outbox_row` is given these with the id behind the shard and the attempts at the end."""

Columns = tuple[int, str, str, str, str | None, str | None, str, bytes]


def columns_of(outgoing: Outgoing, shard: int) -> Columns:
    """Return the values of COLUMNS for one message."""
    message = outgoing.message
    meta = pack_meta(message, may_be_unrouted=outgoing.may_be_unrouted)
    return (
        *(shard, message.id, str(outgoing.destination), message.type),
        *(outgoing.routing_key, message.key, meta, message.body),
    )


def outbox_row(columns: Sequence[Any]) -> OutboxRow:
    """Return the row of a shard, an id, the other COLUMNS and the attempts."""
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


def check_room(rows: int, count: int, rows_max: int, full: type[LimitReached] = OutboxFull) -> None:
    """Raise `full` unless `count` rows fit beside those there are."""
    if rows + count > rows_max:
        raise full(rows, rows_max)


class Room:
    """How many rows a table takes, judged from a look every 5 s and what this process wrote since.

    Rows that were rolled back count until the next look: the limit errs on the careful side. look: counts the rows.
    spawn: makes the look a task, so that no publish waits for it and all go by the old figure meanwhile; without it
    the one that is due waits. full: what is raised when it takes no more.
    """

    def __init__(
        self,
        rows_max: int,
        look: Callable[[], Awaitable[int]],
        *,
        clock: Clock,
        spawn: Spawn | None = None,
        full: type[LimitReached] = OutboxFull,
    ) -> None:
        self._rows_max = rows_max
        self._full = full
        self._count = look
        self._clock = clock
        self._spawn = spawn
        self._rows = 0
        self._taken = 0  #: since the look that runs began
        self._task: asyncio.Task[None] | None = None
        self._look_at = float("-inf")

    async def take(self, count: int) -> None:
        """Count `count` rows in. Raises OutboxFull, or what it was given for that."""
        await self._look_when_due()
        check_room(self._rows, count, self._rows_max, self._full)
        self._rows += count
        self._taken += count

    async def has(self, count: int) -> bool:
        """Tell whether `take` would take so many."""
        await self._look_when_due()
        return self._rows + count <= self._rows_max

    def give_back(self, count: int) -> None:
        """Count removed rows out."""
        self._rows = max(0, self._rows - count)

    async def _look_when_due(self) -> None:
        now = self._clock.monotonic()
        if now < self._look_at or (self._task is not None and not self._task.done()):
            return
        self._look_at = now + limits.OUTBOX_ESTIMATE_SECONDS  # first: others go on with the old figure meanwhile
        self._taken = 0
        if self._spawn is None:
            await self._look()
        else:
            self._task = self._spawn(self._look(), "outbox.estimate")

    async def _look(self) -> None:
        try:
            self._rows = await self._count() + self._taken
        except StoreUnavailable:
            return  # the append itself will say so, or go through a connection that works
