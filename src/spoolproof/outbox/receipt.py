"""What a publish returns."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Place(StrEnum):
    """Where a published message is kept: `stored` in the outbox, committed; `transaction`: with the caller's commit."""

    STORED = "stored"
    TRANSACTION = "transaction"


class Receipt(msgspec.Struct, frozen=True):
    """Proof that a publish was taken. id: the message's id. place: durable now, or when the caller commits."""

    id: str
    place: Place
