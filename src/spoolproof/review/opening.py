"""Opening an item in somebody's transaction: a new one, or the one that is open for its subject, seen once more. And
closing it there, when what it asks about has settled by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spoolproof.errors import Conflict
from spoolproof.failpoints import failpoint
from spoolproof.ports.reviews import ReviewItem, Reviews, ReviewState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.review.chain import followed
from spoolproof.review.events import ReviewOpened, ReviewResolved
from spoolproof.review.item import resolved, seen_again
from spoolproof.telemetry.events import emit

SYSTEM = "spoolproof"
SETTLED = "settled"
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Opened:
    """The item that is open for a subject. is_new: it was not before."""

    id: str
    is_new: bool


async def open_item(reviews: Reviews, tx: StoreTransaction, item: ReviewItem, message: bytes | None = None) -> Opened:
    """Open an item in `tx`: it is there if and only if that commits.

    If one is open for the subject, that one notes the evidence; up to a hundred times. Raises Conflict if it is
    opened and resolved by others again and again meanwhile.
    """
    actor = item.requested_by or SYSTEM
    new, event = followed(item, "opened", actor, item.opened_at)
    for _ in range(_TRIES):
        if await reviews.add(tx, new, event, message):
            failpoint("review.after_open")
            emit(ReviewOpened(kind=item.kind, subject=item.subject, id=item.id, priority=item.priority))
            return Opened(item.id, is_new=True)
        known = await reviews.lock_open(tx, item.service, item.kind, item.subject)
        if known is not None:
            again = seen_again(known)
            if again is not None:
                await reviews.write(tx, *followed(again, "seen", actor, item.opened_at, item.evidence))
            return Opened(known.id, is_new=False)
    raise Conflict(f"review items of {item.kind} {item.subject} come and go; try again")


async def settle_item(reviews: Reviews, tx: StoreTransaction, id: str, reason: str, now: datetime) -> bool:
    """Resolve an item without an effect: its subject needs no decision any more. False if it is not open."""
    found = await reviews.lock(tx, id)
    item = None if found is None else found.item
    if item is None or item.state is not ReviewState.OPEN:
        return False
    after = resolved(item, SETTLED, SYSTEM, reason, now)
    await reviews.write(tx, *followed(after, "resolved", SYSTEM, now, {"action": SETTLED, "reason": reason}))
    emit(ReviewResolved(kind=item.kind, subject=item.subject, id=id, action=SETTLED, actor=SYSTEM))
    return True
