"""One verb on many dead letters, as a thing that lasts: whoever asked for it may go, and whoever works on it may die.

Which ones are meant is decided once, at the start, in the transaction that starts it. They are then moved portion by
portion; a portion, what became of each of it, and the count are one transaction. So after a crash at any line each one
was moved once or not yet. A replay sends one first, the canary, and the rest only when that has succeeded.

    canary → running → done          canary → stopped (it failed) ─┐ resume
    canary, running → cancelled ───────────────────────────────────┴→ canary or running

Never here: waiting, and deciding what a canary means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from spoolproof import limits
from spoolproof.ports.dead_letters import FORCED, MOVES, DeadLetterFilter, DeadLetterState, Move
from spoolproof.ports.leases import Fence
from spoolproof.ports.retention import Rule

RETENTION = (Rule(table="dead_letter_bulk", key=("id",), since="ended_at", seconds=limits.CLOSED_RETENTION_SECONDS),)


class BulkVerb(StrEnum):
    """What is done to each."""

    REPLAY = "replay"
    DISCARD = "discard"


class BulkState(StrEnum):
    """Where the whole stands."""

    CANARY = "canary"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    CANCELLED = "cancelled"


LIVE = (BulkState.CANARY, BulkState.RUNNING)
ENDED_EARLY = (BulkState.STOPPED, BulkState.CANCELLED)


class BulkStep(msgspec.Struct, frozen=True):
    """Something done to the whole: started, resumed, cancelled, stopped; by whom and why."""

    at: datetime
    actor: str
    verb: str
    detail: str = ""


_DISCARDED = Move((DeadLetterState.OPEN, DeadLetterState.REPLAYING), DeadLetterState.DISCARDED)
"""Not what is held: it never failed, and nobody sees it among what did."""


class Bulk(msgspec.Struct, frozen=True, kw_only=True):
    """One verb on many. id: a UUID. queue: where a replay goes instead. total: how many were meant at the start. moved:
    those done. skipped: those that somebody else had moved meanwhile, or that are gone. canary: the dead letter that
    went first, canary_at when."""

    id: str
    verb: BulkVerb
    actor: str
    reason: str
    state: BulkState
    started_at: datetime
    queue: str | None = None
    is_forced: bool = False
    total: int = 0
    moved: int = 0
    skipped: int = 0
    canary: str | None = None
    canary_at: datetime | None = None
    ended_at: datetime | None = None
    history: tuple[BulkStep, ...] = ()

    @property
    def move(self) -> Move:
        """From which states it may take one."""
        if self.verb is BulkVerb.DISCARD:
            return _DISCARDED
        return FORCED if self.is_forced else MOVES["replayed"]

    @property
    def portion(self) -> int | None:
        """How many may be moved next: any (None), one, or none while the canary is out or when it has ended."""
        if self.state is BulkState.CANARY:
            return 1 if self.canary is None else 0
        return None if self.state is BulkState.RUNNING else 0


class Bulks(Protocol):
    """The tables of bulks and of what each is about."""

    async def start(self, bulk: Bulk, filter: DeadLetterFilter) -> Bulk:
        """Keep a bulk about every dead letter that matches now and that its verb may move; returns it with its total.
        One about nothing is done."""

    async def get(self, id: str) -> Bulk | None:
        """Return one, or None."""

    async def all(self, limit: int, *, live: bool = False) -> Sequence[Bulk]:
        """Return the newest first; live: those only that are not ended, the oldest first."""

    async def work(self, id: str, limit: int, fence: Fence) -> Bulk | None:
        """Move the next portion, at most `limit`, in one transaction; returns the bulk as it is then.

        None, and nothing written, if the fence is stale or there is no such bulk.
        """

    async def change(self, id: str, after: Sequence[BulkState], to: BulkState, actor: str, detail: str) -> bool:
        """Move the whole from one of these states to another, with a step in its history; back to `canary`, the next
        one is a canary. False, and nothing written, from another state."""

    async def outcomes(self, id: str) -> Mapping[DeadLetterState, int]:
        """Return how many of those moved are now in which state."""


def advanced(bulk: Bulk, taken: Sequence[str], moved: int, limit: int, now: datetime) -> Bulk:
    """Return a bulk after a portion of `limit` of which these were left to take and so many could be moved."""
    counted = msgspec.structs.replace(bulk, moved=bulk.moved + moved, skipped=bulk.skipped + len(taken) - moved)
    if bulk.state is BulkState.CANARY and moved:
        return msgspec.structs.replace(counted, canary=taken[0], canary_at=now)
    if len(taken) < limit:
        return msgspec.structs.replace(counted, state=BulkState.DONE, ended_at=now)
    return counted


def changed(bulk: Bulk, to: BulkState, step: BulkStep) -> Bulk:
    """Return a bulk in another state."""
    return msgspec.structs.replace(
        bulk,
        state=to,
        history=(*bulk.history, step),
        ended_at=None if to in LIVE else step.at,
        canary=None if to is BulkState.CANARY else bulk.canary,
    )
