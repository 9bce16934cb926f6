"""The service customers talk to: takes orders, and learns what became of their payment and their delivery.

Make its tables once, then run it:

    python -m shop.sales
    uvicorn shop.sales:app

Where another service has to be asked, a handler without `tx` asks and publishes the answer, and a handler with `tx`
notes it: no transaction stays open during the call, and what is noted is noted once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from shop import dependencies
from shop.database import DatabaseAway, check, open_engine, transaction
from shop.dependencies import Stock, UnknownProduct
from shop.events import (
    AvailabilityChecked,
    AvailabilityRecheck,
    DeliveryInitiated,
    DeliveryRequested,
    OrderFlagged,
    OrderPlaced,
    PaymentRefused,
    PaymentTaken,
)
from shop.orders import Base, NewOrder, Order, OrderView
from spoolproof import Delivery, Service, Transaction
from spoolproof.errors import BreakerOpen, LimitReached, Unavailable

service = Service("sales")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine = app.state.engine = open_engine(service.settings.store_url)
    async with dependencies.watched(partial(check, engine)), service.lifespan(app):
        yield
    await engine.dispose()


app = FastAPI(title="sales", lifespan=lifespan)


# --- take orders ------------------------------------------------------------------------------------------------------


@app.post("/orders", status_code=201)
async def place_order(
    new: NewOrder,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
) -> OrderView:
    """Place an order. The same Idempotency-Key again answers the same order: repeat it when you got no answer."""
    engine = request.app.state.engine
    order, is_new = await find_order(engine, idempotency_key), False
    if order is None:
        stock = await stock_for(new)  # before the transaction: none stays open while another service is asked
        try:
            order, is_new = await place_once(engine, new, idempotency_key, stock)
        except IntegrityError as error:  # a request beside this one was faster; it has committed by now
            order = await find_order(engine, idempotency_key)
            if order is None:
                raise HTTPException(409, f"there is an order {new.order_id!r} under another Idempotency-Key") from error
    if (order.customer, order.product_id, order.quantity, order.total_cents) != (
        new.customer,
        new.product_id,
        new.quantity,
        new.total_cents,
    ):
        raise HTTPException(422, f"Idempotency-Key {idempotency_key!r} was used for another order")
    response.status_code = 201 if is_new else 200
    return OrderView.model_validate(order)


async def find_order(engine: AsyncEngine, key: str) -> Order | None:
    async with transaction(engine) as session:
        return await session.scalar(select(Order).where(Order.idempotency_key == key))


async def stock_for(new: NewOrder) -> Stock | None:
    """Return what is left, or what is assumed while nobody answers; None where no product service is used."""
    if dependencies.PRODUCTS_URL is None:
        return None
    try:
        stock = await dependencies.products.call(dependencies.stock_of, new.product_id, new.quantity)
    except UnknownProduct as error:
        raise HTTPException(404, str(error)) from error
    if not stock.is_available:
        raise HTTPException(409, f"{stock.quantity} of {new.product_id!r} are left")
    return stock


async def place_once(engine: AsyncEngine, new: NewOrder, key: str, stock: Stock | None) -> tuple[Order, bool]:
    """The order and everything that follows from it: one commit."""
    async with transaction(engine) as session:
        order = Order(id=new.order_id, idempotency_key=key, **new.model_dump(exclude={"order_id"}))
        session.add(order)
        events: list[object] = [OrderPlaced(order.id, order.total_cents)]
        if stock is not None and stock.assumed_because:
            order.requires_manual_review = True
            order.review_reason = f"availability of {stock.quantity} assumed: {stock.assumed_because}"
            events.append(OrderFlagged(order.id, order.review_reason))
            events.append(AvailabilityRecheck(order.id, order.product_id, order.quantity))
        elif dependencies.DELIVERY_URL is not None:
            events.append(DeliveryRequested(order.id))
        await session.flush()
        for event in events:
            await service.publish(event, key=order.id, transaction=session)
    return order, True  # only now: the order and its events are committed


@app.get("/orders/{order_id}")
async def show_order(order_id: str, request: Request) -> OrderView:
    async with transaction(request.app.state.engine) as session:
        order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id!r}")
    return OrderView.model_validate(order)


@app.exception_handler(DatabaseAway)
@app.exception_handler(BreakerOpen)
@app.exception_handler(Unavailable)
@app.exception_handler(LimitReached)
async def answer_try_again(request: Request, error: Exception) -> JSONResponse:
    """Nothing is lost by saying so: the caller keeps the order and sends it again under the same key."""
    seconds = math.ceil(error.retry_after_seconds) if isinstance(error, BreakerOpen) else 1
    return JSONResponse(
        {"detail": "temporarily unavailable"}, status_code=503, headers={"Retry-After": str(max(1, seconds))}
    )


# --- learn what became of them ----------------------------------------------------------------------------------------


@service.on(PaymentTaken, PaymentRefused)
async def note_payment(payment: PaymentTaken | PaymentRefused, tx: Transaction) -> None:
    status = "paid" if isinstance(payment, PaymentTaken) else "refused"
    await tx.execute("update shop_order set status = $1 where id = $2", status, payment.order_id)


@service.on(OrderFlagged)
async def record_flag(flagged: OrderFlagged, tx: Transaction) -> None:
    await tx.execute("insert into order_flag (order_id, reason) values ($1, $2)", flagged.order_id, flagged.reason)


@service.on(AvailabilityRecheck, gate=dependencies.products)
async def recheck_availability(recheck: AvailabilityRecheck) -> None:
    """Waits in the broker until the product service is back, and burns no attempt meanwhile."""
    reason = ""
    try:
        async with dependencies.products.permit():  # a block has no fallback: an assumption would prove nothing here
            stock = await dependencies.stock_of(recheck.product_id, recheck.quantity)
        if not stock.is_available:
            reason = f"{stock.quantity} of {recheck.product_id!r} are left"
    except UnknownProduct as error:
        reason = str(error)
    await service.publish(AvailabilityChecked(recheck.order_id, reason), key=recheck.order_id)


@service.on(AvailabilityChecked)
async def note_availability(checked: AvailabilityChecked, tx: Transaction) -> None:
    """An order that can be served goes on as if it had been checked at once; for the others a person decides."""
    if checked.reason:
        await tx.execute("update shop_order set review_reason = $1 where id = $2", checked.reason, checked.order_id)
        return
    await tx.execute(
        "update shop_order set requires_manual_review = $1, review_reason = '' where id = $2", False, checked.order_id
    )
    if dependencies.DELIVERY_URL is not None:
        await tx.publish(DeliveryRequested(checked.order_id), key=checked.order_id)


@service.on(DeliveryRequested, gate=dependencies.delivery)
async def initiate_delivery(requested: DeliveryRequested, delivery: Delivery) -> None:
    """Waits in the broker while the delivery service is away; each run counts on the order, so that people see it."""
    async with service.transaction() as tx:
        await tx.execute(
            "update shop_order set delivery_attempts = delivery_attempts + 1 where id = $1", requested.order_id
        )
    keyed = dependencies.delivery.using(idempotency_key=delivery.idempotency_key)
    delivery_id = await keyed.call(dependencies.initiate_delivery, requested.order_id)
    await service.publish(DeliveryInitiated(requested.order_id, delivery_id), key=requested.order_id)


@service.on(DeliveryInitiated)
async def note_delivery(initiated: DeliveryInitiated, tx: Transaction) -> None:
    await tx.execute("update shop_order set delivery_id = $1 where id = $2", initiated.delivery_id, initiated.order_id)


app.mount("/", service.health)  # /live, /ready, /health; every other path stays the application's


async def make_tables() -> None:
    engine = open_engine(service.settings.store_url)
    await service.start(only=())  # Spoolproof's own tables; no relay, no consumer
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    await service.stop()


if __name__ == "__main__":
    asyncio.run(make_tables())
