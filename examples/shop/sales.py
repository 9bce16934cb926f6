"""The service customers talk to. An order is a saga: it is taken by starting one, and answered once that has got as far
as the order itself. What comes after that is in `shop.saga`, what is checked later in `shop.reconciliation`.

Make its tables once, then run it:

    python -m shop.sales
    uvicorn shop.sales:app
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Response

from shop import dependencies, reconciliation
from shop.orders import TABLES, NewOrder, OrderView, PlaceOrder, find, service
from shop.saga import create_order, initiate_delivery, order
from shop.web import Key, answer_try_again
from spoolproof.saga import KeyConflict, SagaInReview, SagaRefused

__all__ = ["app", "order", "reconciliation", "service"]

ANSWER_SECONDS = 5.0  #: over the 3 s that the product service may take


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with service.lifespan(app), dependencies.watched(check_database, service.saga.wake):
        yield
    await dependencies.http.aclose()


app = FastAPI(title="sales", lifespan=lifespan)
answer_try_again(app)


@app.post("/orders", status_code=201)
async def place_order(new: NewOrder, response: Response, idempotency_key: Key) -> OrderView:
    """Place an order; its number is the Idempotency-Key. The same again answers the same order: repeat it when you got
    no answer. 409: it cannot be served. 202: it is taken, and not looked at yet."""
    place = PlaceOrder(order_id=idempotency_key, **new.model_dump())
    try:
        async with dependencies.database.permit():
            started = await order.start(place, id=idempotency_key)
        await started.reached(create_order, ANSWER_SECONDS)
    except KeyConflict as error:
        raise HTTPException(422, f"Idempotency-Key {idempotency_key!r} was used for another order") from error
    except SagaRefused as refusal:
        raise HTTPException(409, refusal.cause) from refusal
    except (TimeoutError, SagaInReview):
        response.status_code = 202
        return OrderView(id=place.order_id, **new.model_dump(), status="received")
    response.status_code = 201 if started.is_new else 200
    return await show_order(idempotency_key)


@app.get("/orders/{order_id}")
async def show_order(order_id: str) -> OrderView:
    async with dependencies.database.permit(), service.transaction() as tx:
        found = await find(tx, order_id)
    if found is None:
        raise HTTPException(404, f"there is no order {order_id!r}")
    journal = await service.saga.handle("shop.order", order_id).look()
    attempts = sum(row.attempts for row in journal.steps if row.name == initiate_delivery.name and row.phase == "do")
    return OrderView(**found, delivery_attempts=attempts, cause=journal.saga.cause or "")


async def check_database() -> None:
    async with service.transaction() as tx:
        await tx.fetch("select 1")


app.mount("/", service.health)  # /live, /ready, /health; every other path stays the application's


async def make_tables() -> None:
    await service.start(only=())  # Spoolproof's own tables; no relay, no consumer
    is_postgres = service.settings.store_url.startswith("postgres")
    async with service.transaction() as tx:
        for table in TABLES:
            await tx.execute(table.format(collation='collate "C"' if is_postgres else ""))
    await service.stop()


if __name__ == "__main__":
    asyncio.run(make_tables())
