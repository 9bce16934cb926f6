"""What reconciliation keeps: marks, keys that are checked until they are settled, and runs that compare two systems.

A mark is written in the caller's transaction; marked again while it is checked, it is checked once more. A run is one
value with a version: whoever writes it names the version that was read, so two processes never both take a step of it,
and one that went on after its lease was lost finds out at its next write. One run of a reconciler is unfinished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from spoolproof.ports.retention import Rule
from spoolproof.ports.transaction import StoreTransaction

RETENTION = (Rule(table="reconciliation_run", key=("id",), since="finished_at", seconds=30 * 86_400.0),)

State = str | int
"""A state of a thing in one system, as JSON has it."""


class Verdict(StrEnum):
    """What a difference calls for: a repair, or a person, and why a person."""

    REPAIR = "repair"
    UNDECLARED = "undeclared"
    UNMAPPED = "unmapped"
    MISSING_THERE = "missing_there"
    MISSING_HERE = "missing_here"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A key whose two states do not fit. to: what theirs means in our words; None if it means nothing. became: what
    was done about it: repaired, reviewed, or why it was skipped; "" so far."""

    key: str
    ours: State | None
    theirs: State | None
    to: State | None
    verdict: Verdict
    became: str = ""


class Phase(StrEnum):
    """How far a run is."""

    COMPARE = "compare"
    REPAIR = "repair"
    FINISHED = "finished"
    BRAKED = "braked"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison. seen: candidates; each is equal, repaired, reviewed or skipped, with the reason, once it is over.

    position: the last key that was compared. handled: how many of the differences. touched_at: its last step.
    """

    id: str
    service: str
    reconciler: str
    started_at: datetime
    touched_at: datetime
    is_dry: bool = False
    is_forced: bool = False
    phase: Phase = Phase.COMPARE
    position: str | None = None
    seen: int = 0
    seen_ours: int = 0
    seen_theirs: int = 0
    equal: int = 0
    repaired: int = 0
    reviewed: int = 0
    skipped: dict[str, int] = {}
    differences: tuple[Difference, ...] = ()
    handled: int = 0
    finished_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A key to be checked. dirty: how often it was marked. failures: of its checks, in a row."""

    reconciler: str
    key: str
    dirty: int
    failures: int


class Reconciliations(Protocol):
    """The tables of marks and runs. All raise StoreUnavailable."""

    async def mark(self, tx: StoreTransaction, service: str, reconciler: str, key: str, now: datetime) -> None:
        """Have a key checked, if and only if `tx` commits; at once, also if it waits for its next check."""

    async def due(self, service: str, now: datetime, limit: int) -> Sequence[Mark]:
        """Return marks whose check is due, the longest due first."""

    async def settle(self, service: str, mark: Mark) -> bool:
        """Forget a mark; False if it was marked again since it was read."""

    async def delay(self, service: str, mark: Mark, next_at: datetime, note: str) -> None:
        """Put off a mark, with one failure more if there is a note; unless it was marked again since it was read."""

    async def wake(self, service: str, reconciler: str, now: datetime) -> int:
        """Make every mark of a reconciler due; returns how many were not."""

    async def marks(self, service: str | None) -> Mapping[tuple[str, str], int]:
        """Return how many marks there are by service and reconciler."""

    async def start(self, tx: StoreTransaction, run: Run) -> bool:
        """Write a new run in `tx`. False, and nothing written, if one is unfinished."""

    async def write(self, tx: StoreTransaction, run: Run) -> bool:
        """Write what a run has become since it was read; False if somebody else has. Its version is one more then."""

    async def runs(self, service: str | None, reconciler: str | None, limit: int) -> Sequence[Run]:
        """Return runs, the newest first; perhaps none."""

    async def get(self, id: str) -> Run | None:
        """Return a run, or None."""
