"""What the services tell each other, and sales itself. The names are the contract; the classes may move."""

from __future__ import annotations

import msgspec

from spoolproof import event


@event("shop.availability.assumed")
class AvailabilityAssumed(msgspec.Struct):
    """The product service was away: one of everything was taken to be there."""

    order_id: str
    product_id: str
    quantity: int


@event("shop.order.confirmed")
class OrderConfirmed(msgspec.Struct):
    """Paid, and on its way to the delivery service."""

    order_id: str
    total_cents: int


@event("shop.order.moved")
class OrderMoved(msgspec.Struct):
    """Reconciliation found that the delivery service knew better."""

    order_id: str
    status: str
