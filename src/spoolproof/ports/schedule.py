"""Messages that are not due yet.

A row is written in the caller's transaction, as an outbox row is, and moves to the outbox of its service when it is
due: it is in exactly one of the two tables, also after a crash. Moving and cancelling one row never both succeed. What
is due goes by the clock of the database, on SQLite by that of its machine.

Never here: publishing, choosing who promotes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from spoolproof.message import Outgoing
from spoolproof.ports.transaction import StoreTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRow:
    """A message and when it is due, at the earliest. service: whose it is."""

    service: str
    outgoing: Outgoing
    due_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What one promotion did. late_seconds: how long the row that was due first had been due; 0 without rows."""

    rows: int
    late_seconds: float


class Schedule(Protocol):
    """The table of scheduled messages."""

    async def add(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        """Add messages whose `due` is set, for the service that claimed its block: inside the caller's transaction, or,
        with None, in one of their own that has committed on return.

        Raises ScheduleFull before any write, StoreUnavailable, and for a user's own handle OutboxMissing.
        """

    async def cancel(self, message_id: str, service: str | None, tx: StoreTransaction | None = None) -> int:
        """Delete the rows of a message id, of one service or of all; returns how many there were. 0: it is on its way,
        or unknown. With None for tx it has committed on return. Raises StoreUnavailable."""

    async def promote(self, service: str, limit: int) -> Promotion:
        """Move at most `limit` rows that are due to the outbox, in order of their time and then of their writing, in
        one transaction that has committed on return. Raises StoreUnavailable."""

    async def search(self, service: str | None, limit: int) -> Sequence[ScheduledRow]:
        """Return rows of one service or of all, due first first. Raises StoreUnavailable."""

    async def count(self, service: str) -> int:
        """Return how many rows a service has, counted up to SCHEDULED_ROWS_MAX and one. Raises StoreUnavailable."""
