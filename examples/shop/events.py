"""What the services tell each other, and sales itself. The names are the contract; the classes may move."""

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


@event("shop.order.flagged")
class OrderFlagged(msgspec.Struct):
    """A person should look at this order."""

    order_id: str
    reason: str


@event("shop.availability.recheck")
class AvailabilityRecheck(msgspec.Struct):
    """Availability was assumed: ask again as soon as somebody answers."""

    order_id: str
    product_id: str
    quantity: int


@event("shop.availability.checked")
class AvailabilityChecked(msgspec.Struct):
    """What the product service answered in the end. reason: why the order cannot be served; empty if it can."""

    order_id: str
    reason: str


@event("shop.delivery.requested")
class DeliveryRequested(msgspec.Struct):
    order_id: str


@event("shop.delivery.initiated")
class DeliveryInitiated(msgspec.Struct):
    order_id: str
    delivery_id: str
