"""An order and its event in one commit; a handler whose effect happens once. Needs nothing but the package."""

import asyncio

import msgspec

from spoolproof import Service, Transaction, event

service = Service("quickstart")  # SQLite and the embedded broker, in the folder .spoolproof


@event("quickstart.order.placed")
class OrderPlaced(msgspec.Struct):
    order_id: str
    total_cents: int


@event("quickstart.payment.taken")
class PaymentTaken(msgspec.Struct):
    order_id: str


@service.on(OrderPlaced)
async def take_payment(order: OrderPlaced, tx: Transaction) -> None:
    await tx.execute("insert into payment values ($1, $2)", order.order_id, order.total_cents)
    await tx.publish(PaymentTaken(order.order_id), key=order.order_id)


is_paid = asyncio.Event()


@service.on(PaymentTaken)
async def tell_customer(payment: PaymentTaken) -> None:
    print(f"order {payment.order_id} is paid")
    is_paid.set()


async def main() -> None:
    async with service.lifespan():
        async with service.transaction() as tx:
            await tx.execute("create table if not exists shop_order (id text)")
            await tx.execute("create table if not exists payment (order_id text, cents integer)")
            await tx.execute("insert into shop_order values ($1)", "o-1")
            await tx.publish(OrderPlaced("o-1", 1250), key="o-1")
        print("order o-1 is accepted")
        await asyncio.wait_for(is_paid.wait(), timeout=10)


asyncio.run(main())
