"""The saga of an order: availability, order, payment, delivery, confirmation. Whatever dies meanwhile, it comes to its
end or is undone in reverse; what nobody can know is asked of a person.

`spoolproof saga ls` shows where each order is, `spoolproof review ls` what waits for a person.
"""

from __future__ import annotations

from shop import dependencies
from shop.dependencies import Delivery, Payment, Stock
from shop.events import AvailabilityAssumed, OrderConfirmed
from shop.orders import PlaceOrder, Status, find, move, now, service
from spoolproof import Transaction
from spoolproof.saga import Flow, Refused, Step, Verdict

LARGE_QUANTITY = 20
AVAILABILITY, LARGE_ORDER = "availability", "large_order"  #: the questions

order = service.saga("shop.order", version=1, deadline=172_800)  # undone if it is not over after 48 h


@order.step(effect="read", policy=dependencies.products, timeout=3, fallback=Stock(quantity=1, is_assumed=True))
async def check_availability(step: Step, o: PlaceOrder) -> Stock:
    return await dependencies.stock_of(o.product_id, o.quantity)


@order.step(effect="tx")  # order, event, question and mark: one commit
async def create_order(step: Step, o: PlaceOrder, stock: Stock, tx: Transaction) -> None:
    reason = ""
    if stock.is_assumed:
        reason = f"availability of {stock.quantity} assumed: the product service did not answer"
        await tx.publish(AvailabilityAssumed(o.order_id, o.product_id, stock.quantity), key=o.order_id)
        text = f"{o.quantity} of {o.product_id!r} were sold without asking the product service. Can it be served?"
        await step.open_review(AVAILABILITY, tx, text=text, due_seconds=14_400)
        await service.reconciliation.mark("order.availability", o.order_id, transaction=tx)
    elif o.quantity >= LARGE_QUANTITY:
        reason = f"{o.quantity} at once"
    await tx.execute(
        "insert into shop_order values ($1, $2, $3, $4, $5, $6, $7, $8, null, $9, $9)",
        *(o.order_id, o.customer, o.product_id, o.quantity, o.total_cents),
        *(Status.PENDING_PAYMENT.value, reason != "", reason, now()),
    )


@create_order.compensate
async def cancel_order(step: Step, o: PlaceOrder, created: None, tx: Transaction) -> None:
    found = await find(tx, o.order_id)
    if found is not None:
        await move(tx, o.order_id, found["status"], Status.CANCELLED, requires_manual_review=False)


@order.step(effect="tx", why="a flag that is gone hurts nobody")
async def clear_review_flag(step: Step, o: PlaceOrder, verdict: Verdict, tx: Transaction) -> None:
    sql = "update shop_order set requires_manual_review = $2, review_reason = '' where id = $1"
    await tx.execute(sql, o.order_id, False)


@order.step(policy=dependencies.payments, tombstone=True)  # keyed: payments knows step.key, and is told of the refund
async def take_payment(step: Step, o: PlaceOrder) -> Payment:
    return await dependencies.take_payment(o.order_id, o.total_cents, step.key)


@take_payment.compensate
async def refund(step: Step, o: PlaceOrder, payment: Payment | None) -> None:  # None: no answer ever came
    await dependencies.refund(step.forward_key)


@order.step(
    policy=dependencies.delivery,
    retry_seconds=(60, 300),
    give_up_seconds=86_400,
    on_exhausted="review",
    tombstone=True,
)
async def initiate_delivery(step: Step, o: PlaceOrder) -> Delivery:
    return await dependencies.initiate_delivery(o.order_id, step.key)


@initiate_delivery.compensate
async def cancel_delivery(step: Step, o: PlaceOrder, delivery: Delivery | None) -> None:
    await dependencies.cancel_delivery(step.forward_key)


@order.step(effect="tx", pivot=True)  # from here on nothing is undone
async def confirm(step: Step, o: PlaceOrder, delivery: Delivery, tx: Transaction) -> None:
    more = {"delivery_id": delivery.delivery_id}
    if not await move(tx, o.order_id, Status.PENDING_PAYMENT, Status.PENDING_SHIPMENT, **more):
        raise Refused(f"order {o.order_id} is no longer {Status.PENDING_PAYMENT}")
    await tx.publish(OrderConfirmed(o.order_id, o.total_cents), key=o.order_id)


@order.flow
async def place(saga: Flow, o: PlaceOrder) -> str:
    stock = await saga.do(check_availability)
    if stock.quantity < o.quantity and not stock.is_assumed:
        raise Refused(f"{stock.quantity} of {o.product_id!r} are left")
    await saga.do(create_order, stock)
    verdict = None
    if stock.is_assumed:  # no money for goods that nobody checked
        verdict = await saga.review(AVAILABILITY)
    elif o.quantity >= LARGE_QUANTITY:
        verdict = await saga.review(LARGE_ORDER, text=f"{o.quantity} of {o.product_id!r} at once: may it go?")
    if verdict is not None:
        if verdict.action == "reject":
            raise Refused(verdict.reason)
        await saga.do(clear_review_flag, verdict)
    await saga.do(take_payment)
    delivery = await saga.do(initiate_delivery)
    await saga.do(confirm, delivery)
    return str(delivery.delivery_id)
