"""What is told of review items."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import gauge

ITEMS = gauge("review_items", "Review items that are open: claimed by a person, or waiting for one.", "kind", "state")
OVERDUE = gauge("review_overdue", "Open review items that are past their due time.", "kind")
OLDEST = gauge("review_oldest_timestamp_seconds", "When the oldest open review item was opened, in Unix time.", "kind")


class ReviewOpened(
    Event,
    name="review.opened",
    line="kind={kind} subject={subject} id={id} priority={priority}: it is there once its transaction commits; "
    "spoolproof review show {id}",
    counter="review_opened_total",
    labels=("kind",),
):
    """A question for a person was written."""

    kind: str
    subject: str
    id: str
    priority: str


class ReviewResolved(
    Event,
    name="review.resolved",
    line="kind={kind} subject={subject} id={id} action={action} actor={actor}",
    counter="review_resolved_total",
    labels=("kind", "action"),
):
    """A person decided, and the effect is committed."""

    kind: str
    subject: str
    id: str
    action: str
    actor: str


class ReviewEscalated(
    Event,
    name="review.escalated",
    level=WARNING,
    line="kind={kind} subject={subject} id={id} raised={raised} priority={priority}: nobody has decided in time; "
    "spoolproof review show {id}",
    counter="review_escalated_total",
    labels=("kind",),
):
    """An item was due and is more urgent now."""

    kind: str
    subject: str
    id: str
    raised: int
    priority: str


class ReviewTampered(
    Event,
    name="review.tampered",
    level=ERROR,
    line="id={id} fault={fault}: its audit trail does not fit; spoolproof review verify",
    counter="review_tampered_total",
):
    """A review item or an event of its trail was changed or taken away by other hands."""

    id: str
    fault: str
