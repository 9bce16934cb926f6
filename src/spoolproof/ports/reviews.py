"""Review items: questions that a person decides, and everything that was done to each.

One item is open for a (service, kind, subject). Its row is one value and some columns of it to find it by; every change
writes the row and one more event in the same transaction, under the row's lock. Events are a chain: each holds the hash
of the one before and the digest of the item as it was after it, so that a row that was changed or taken away by other
hands is found (`review/chain.py`).

Never here: a decision. What may become of an item is said in `review/item.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from spoolproof import limits
from spoolproof.ports.retention import Rule
from spoolproof.ports.transaction import StoreTransaction

RETENTION = (
    Rule(table="review_item", key=("id",), since="resolved_at", seconds=limits.REVIEW_RETENTION_SECONDS),
    Rule(table="review_event", key=("review_id", "n"), since="closed_at", seconds=limits.REVIEW_RETENTION_SECONDS),
)


class ReviewState(StrEnum):
    """Where an item stands. One that is claimed is open, and whose claim has run out needs nobody to release it."""

    OPEN = "open"
    RESOLVED = "resolved"


class Priority(StrEnum):
    """How urgent an item is, least first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True):
    """A question. evidence: any JSON. level: how often it was escalated. seen: how often it was opened, at most 101.

    proposed: the action that one person wants, with these values, and another must agree to. message_hash: of the
    message it carries. events, head: how many events its chain has, and the hash of the last.
    """

    id: str
    service: str
    kind: str
    subject: str
    question: str
    actions: tuple[str, ...]
    priority: Priority
    opened_at: datetime
    due_at: datetime
    evidence: Any = None
    requested_by: str = ""
    message_hash: str = ""
    state: ReviewState = ReviewState.OPEN
    level: int = 0
    seen: int = 1
    claimed_by: str = ""
    claim_token: str = ""
    claim_until: datetime | None = None
    proposed: str = ""
    proposed_values: Any = None
    proposed_by: str = ""
    action: str = ""
    resolved_by: str = ""
    resolved_at: datetime | None = None
    reason: str = ""
    events: int = 0
    head: str = ""


class ReviewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done to an item: opened, seen, claimed, released, proposed, escalated, resolved. n: from 1.

    detail: any JSON. item: the digest of the item after it. hash: over all that and the hash of the event before.
    """

    review_id: str
    n: int
    at: datetime
    actor: str
    verb: str
    item: str
    detail: Any = None
    hash: str = ""


@dataclass(frozen=True, slots=True)
class ReviewDetails:
    """All that is kept of one id. item: None for events whose item is gone. message: what it carries, packed."""

    item: ReviewItem | None
    events: Sequence[ReviewEvent]
    message: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFilter:
    """Which items; every given field must match. due_by: due at that time or before. after: those behind this due time
    and id. limit: at most so many, soonest due first."""

    service: str | None = None
    kind: str | None = None
    subject: str | None = None
    state: ReviewState | None = ReviewState.OPEN
    due_by: datetime | None = None
    after: tuple[datetime, str] | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ReviewCount:
    """How many items of a kind are open: those that are claimed and those that are not. overdue: of them."""

    kind: str
    is_claimed: bool
    count: int
    overdue: int
    oldest_at: datetime


class Reviews(Protocol):
    """The tables of review items and their events. All raise StoreUnavailable."""

    async def add(
        self, tx: StoreTransaction, item: ReviewItem, event: ReviewEvent, message: bytes | None = None
    ) -> bool:
        """Write an open item and its first event in `tx`. False, and nothing written, if one is open for its subject;
        one that another transaction is about to open is waited for."""

    async def lock(self, tx: StoreTransaction, id: str) -> ReviewDetails | None:
        """Return an item without its events; nobody else changes it before `tx` ends."""

    async def lock_open(self, tx: StoreTransaction, service: str, kind: str, subject: str) -> ReviewItem | None:
        """Return the one that is open for a subject, likewise."""

    async def write(self, tx: StoreTransaction, item: ReviewItem, event: ReviewEvent) -> None:
        """Write what an item has become, and the event, in the transaction that locked it."""

    async def get(self, id: str) -> ReviewDetails | None:
        """Return what is kept of an id, or None."""

    async def search(self, filter: ReviewFilter) -> Sequence[ReviewItem]:
        """Return those that match, soonest due first; perhaps none."""

    async def counts(self, service: str, now: datetime) -> Sequence[ReviewCount]:
        """Return how many items of a service are open, by kind and whether they are claimed at that time."""

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        """Return the ids above one, of items and of events, in order."""
