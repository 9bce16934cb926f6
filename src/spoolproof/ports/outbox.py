"""Messages waiting for the broker.

A row is written in the caller's transaction: it exists if and only if the business change committed.
Rows live in the shards of their service (`ports.services`); only the holder of a shard's lease ships them, so rows of
one ordering key leave in the order they were written.

Never here: publishing, reading a clock, removing a row that has no confirm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from spoolproof.message import Outgoing
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.leases import Fence
from spoolproof.ports.transaction import StoreTransaction


@dataclass(frozen=True, slots=True)
class RowRef:
    """Names an outbox row; within one ordering key, ids are publish order."""

    shard: int
    id: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message and where it stands."""

    ref: RowRef
    outgoing: Outgoing
    attempts: int  #: publishes the broker refused; outages do not count


@dataclass(frozen=True, slots=True)
class Page:
    """What one read of the outbox found.

    rows: in id order per shard. seen_to: for every shard asked for, up to which id all rows that anybody could see are
    in `rows`, or were left out as asked for; below the cursor asked for, the store has gone back in time (a restored
    backup, a promoted replica). unfinished: transactions that may yet commit rows up to there; numbers that never come
    back. running: of those ever named, all that have not ended. has_more: the read ended early, not for want of rows.
    """

    rows: Sequence[OutboxRow]
    seen_to: Mapping[int, int]
    unfinished: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    has_more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How much waits. rows: all rows, counted up to 100 000 (then 100 000 means "or more"); deferred: of these, the
    ones waiting for their next attempt; oldest_at: when the oldest row was written, None when there is none."""

    rows: int
    deferred: int
    oldest_at: datetime | None


class Outbox(Protocol):
    """What publish() and the relay need from a store."""

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        """Add rows to the shards of the service that claimed its block: inside the caller's transaction, or, with None,
        in one of their own that has committed on return.

        Raises OutboxFull before any write, StoreUnavailable, and for a user's own handle OutboxMissing.
        """

    async def has_room(self, messages: int) -> bool:
        """Tell whether an append of so many rows would be taken, as far as is known; cheap enough to ask again and
        again."""

    async def fetch(
        self, shards: Mapping[int, int], paused: Collection[str], limit: int, skip: Collection[int] = ()
    ) -> Page:
        """Return ready rows of the given shards with ids above the given cursor each, in id order per shard.

        shards: shard → cursor (0 = from the start). paused: destinations, or `destination type` pairs, to leave out.
        limit: per shard. skip: row ids to leave out. A row behind a deferred row of its key and destination is not
        ready. Bounded work, whatever lies above the cursor; what lies below costs nothing.
        """

    async def remove(self, refs: Sequence[RowRef]) -> int:
        """Forget confirmed rows; returns how many were still there. No fence: a confirmed row may always go."""

    async def defer(self, ref: RowRef, seconds: float, error: str, fence: Fence) -> bool:
        """Count an attempt and hide the row for `seconds` of the database's clock. False if the fence is stale."""

    async def promote_due(self, shards: Collection[int]) -> Sequence[RowRef]:
        """Make rows ready whose deferral has passed; returns them."""

    async def give_up(self, ref: RowRef, dead_letter: DeadLetterRecord, fence: Fence) -> bool:
        """Move a row to the dead letters in one step. False, and nothing written, if the fence is stale."""

    async def backlog(self, shards: range | None = None) -> Backlog:
        """Return how much waits in these shards, or in all; bounded work however many rows there are."""
