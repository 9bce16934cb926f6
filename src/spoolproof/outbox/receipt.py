"""What a publish returns."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from spoolproof.message import Outgoing


class Place(StrEnum):
    """Where a published message is kept: `stored` in the outbox, committed; `spooled` in a file of this machine, while
    the store is away; `transaction`: with the caller's commit; `scheduled` for later, committed or with the caller's
    commit, and `cancel` may still take it back."""

    STORED = "stored"
    SPOOLED = "spooled"
    TRANSACTION = "transaction"
    SCHEDULED = "scheduled"


class Receipt(msgspec.Struct, frozen=True):
    """Proof that a publish was taken. id: the message's id. place: durable now, or when the caller commits."""

    id: str
    place: Place


def receipt_of(outgoing: Outgoing, place: Place) -> Receipt:
    """Return the receipt of a message that is kept there, unless it is for later."""
    return Receipt(outgoing.message.id, place if outgoing.due is None else Place.SCHEDULED)
