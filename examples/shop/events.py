"""What the services tell each other. The names are the contract; the classes may move."""

from __future__ import annotations

import msgspec

from spoolproof import event


@event("shop.order.placed")
class OrderPlaced(msgspec.Struct):
    order_id: str
    total_cents: int


@event("shop.payment.taken")
class PaymentTaken(msgspec.Struct):
    order_id: str


@event("shop.payment.refused")
class PaymentRefused(msgspec.Struct):
    order_id: str
    reason: str
