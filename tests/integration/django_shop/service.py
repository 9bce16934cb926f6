"""The service beside the views: it is started by its own process, and only named by theirs."""

import msgspec

from spoolproof import Service, event

service = Service("shop")


@event("shop.order.placed")
class OrderPlaced(msgspec.Struct):
    order_id: str


@service.on(OrderPlaced)
def take_payment(order: OrderPlaced) -> None:
    from django_shop.models import Payment

    Payment.objects.get_or_create(order_id=order.order_id)
