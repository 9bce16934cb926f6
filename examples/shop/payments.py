"""The service that takes the money for placed orders.

Make its tables once, then run it:

    python -m shop.payments
    spoolproof run shop.payments:service
"""

from __future__ import annotations

import asyncio

from shop.bank import charge
from shop.events import OrderPlaced, PaymentRefused, PaymentTaken
from spoolproof import Delivery, Service, Transaction

service = Service("payments")


# Short delays, so that the demo ends soon. The defaults, 8 attempts over 21 minutes, are made for real banks.
@service.on(OrderPlaced, attempts=3, delays=(1,))
async def take_payment(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
    """The payment, the event about it and the note that this order is done: one commit."""
    is_taken = await charge(order.order_id, order.total_cents, delivery, tx)
    await tx.execute(
        "insert into payment (order_id, total_cents, outcome) values ($1, $2, $3)",
        order.order_id,
        order.total_cents,
        "taken" if is_taken else "refused",
    )
    event = PaymentTaken(order.order_id) if is_taken else PaymentRefused(order.order_id, "over the limit of the card")
    await tx.publish(event, key=order.order_id)


async def make_tables() -> None:
    await service.start(only=())  # Spoolproof's own tables; no relay, no consumer
    async with service.transaction() as tx:
        # nothing here keeps an order from being charged twice: that is the inbox's task
        await tx.execute(
            "create table if not exists payment (order_id text not null, total_cents integer not null, "
            "outcome text not null)"
        )
        await tx.execute("create table if not exists bank_repaired (repaired integer not null)")
    await service.stop()


if __name__ == "__main__":
    asyncio.run(make_tables())
