"""Runs that come again and again: when each is due next.

A row says it all: whoever leads may move it on, also a process of another release that never heard of it. It is moved
and its run is written to the outbox in one transaction, so a crash neither doubles a run nor skips one.

Processes that declare a row say so again and again; what nobody declares any more is not run, and is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from spoolproof.message import Outgoing


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringRow:
    """One function that runs by the clock. name: of its queue. expression: `every 5m` or `cron 0 3 * * * ZONE`.

    next_at: when it is due. declared_at: when a process last said that it has it. last_at: when the run before was
    due; outcome: what became of that: `handled`, or the state of its dead letter; None: on its way, or forgotten.
    """

    service: str
    name: str
    expression: str
    next_at: datetime
    declared_at: datetime
    last_at: datetime | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Rows, and the store's clock when they were read."""

    now: datetime
    rows: Sequence[RecurringRow]


class Recurring(Protocol):
    """The table of recurring runs."""

    async def find(self, service: str | None) -> Found:
        """Return the rows of one service or of all, next due first. Raises StoreUnavailable."""

    async def declare(
        self, service: str, name: str, expression: str, next_at: datetime, *, stale_seconds: float
    ) -> None:
        """Say that a process has it. A new row, or one with another expression that nobody has declared for
        `stale_seconds`, becomes due at `next_at`; any other keeps its time. Raises StoreUnavailable."""

    async def advance(self, row: RecurringRow, next_at: datetime, run: Outgoing) -> bool:
        """Move a row on to its next time and write its run to the outbox of the service that claimed its block, in one
        transaction. False, and nothing written, if it is not as it was read. Raises StoreUnavailable."""

    async def forget(self, service: str, seconds: float) -> Sequence[str]:
        """Delete the rows that nobody has declared for so long; returns their names. Raises StoreUnavailable."""
