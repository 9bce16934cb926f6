"""The chain of what was done to one item: each event has the hash of the one before and the digest of the item then.

What is found: an event or an item that was changed, one that was taken away or put in between. What is not: an item
that went with its whole chain, and a chain that was written anew from some event on by somebody who can compute it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime

import msgspec

from spoolproof.ports.reviews import ReviewDetails, ReviewEvent, ReviewItem


def digest_of(item: ReviewItem) -> str:
    """Return what an event holds of the item after it."""
    return _hash(msgspec.json.encode(msgspec.structs.replace(item, events=0, head="")))


def hash_of_message(message: bytes | None) -> str:
    """Return what an item holds of the message it carries."""
    return "" if message is None else _hash(message)


def followed(
    item: ReviewItem, verb: str, actor: str, at: datetime, detail: object = None
) -> tuple[ReviewItem, ReviewEvent]:
    """Return what an item has become with the event that says so, and that event."""
    n = item.events + 1
    event = ReviewEvent(
        review_id=item.id, n=n, at=at, actor=actor, verb=verb, item=digest_of(item), detail=_plain(detail)
    )
    head = _linked(item.head, event)
    return msgspec.structs.replace(item, events=n, head=head), msgspec.structs.replace(event, hash=head)


def faults_of(id: str, details: ReviewDetails) -> Iterator[str]:
    """Yield what is wrong with an item and its chain; nothing if nobody has touched them."""
    before, n = "", 0
    for n, event in enumerate(details.events, 1):
        if event.n != n or event.review_id != id:
            yield f"event {n} is missing"
            return
        if event.hash != _linked(before, event):
            yield f"event {n} ({event.verb} by {event.actor}) is not as it was written"
            return
        before = event.hash
    item = details.item
    if item is None:
        yield "the item is missing; its events are there"
    elif not n or (item.events, item.head) != (n, before):
        yield f"of {item.events} events {n} are there, or the last is another"
    elif details.events[-1].item != digest_of(item):
        yield "the item is not as its last event left it"
    elif hash_of_message(details.message) != item.message_hash:
        yield "the message is not the one that it was opened with"


def _linked(before: str, event: ReviewEvent) -> str:
    return _hash(before.encode() + msgspec.json.encode(msgspec.structs.replace(event, hash="")))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _plain(value: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))
