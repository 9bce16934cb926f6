"""The service customers talk to: takes orders, and learns what became of their payment.

Make its table once, then run it:

    python -m shop.sales
    uvicorn shop.sales:app
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shop.database import DatabaseAway, open_engine, transaction
from shop.events import OrderPlaced, PaymentRefused, PaymentTaken
from spoolproof import Service, Transaction
from spoolproof.errors import LimitReached, Unavailable

service = Service("sales")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "shop_order"

    id: Mapped[str] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(unique=True)
    customer: Mapped[str]
    total_cents: Mapped[int]
    status: Mapped[str] = mapped_column(default="placed")


class NewOrder(BaseModel):
    order_id: str = Field(default_factory=lambda: str(uuid.uuid4()), min_length=1, max_length=100)
    customer: str = Field(min_length=1, max_length=200)
    total_cents: int = Field(gt=0, le=2**31 - 1)


class OrderView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    customer: str
    total_cents: int
    status: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.engine = open_engine(service.settings.store_url)
    async with service.lifespan(app):
        yield
    await app.state.engine.dispose()


app = FastAPI(title="sales", lifespan=lifespan)


@app.post("/orders", status_code=201)
async def place_order(
    new: NewOrder,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
) -> OrderView:
    """Place an order. The same Idempotency-Key again answers the same order: repeat it when you got no answer."""
    try:
        order, is_new = await place_once(request.app.state.engine, new, idempotency_key)
    except IntegrityError:  # a request beside this one was faster; it has committed by now
        try:
            order, is_new = await place_once(request.app.state.engine, new, idempotency_key)
        except IntegrityError as error:
            raise HTTPException(409, f"there is an order {new.order_id!r} under another Idempotency-Key") from error
    if (order.customer, order.total_cents) != (new.customer, new.total_cents):
        raise HTTPException(422, f"Idempotency-Key {idempotency_key!r} was used for another order")
    response.status_code = 201 if is_new else 200
    return OrderView.model_validate(order)


async def place_once(engine: AsyncEngine, new: NewOrder, key: str) -> tuple[Order, bool]:
    async with transaction(engine) as session:
        known = await session.scalar(select(Order).where(Order.idempotency_key == key))
        if known is not None:
            return known, False
        order = Order(id=new.order_id, idempotency_key=key, customer=new.customer, total_cents=new.total_cents)
        session.add(order)
        await session.flush()
        await service.publish(OrderPlaced(order.id, order.total_cents), key=order.id, transaction=session)
    return order, True  # only now: the order and its event are committed


@app.get("/orders/{order_id}")
async def show_order(order_id: str, request: Request) -> OrderView:
    async with transaction(request.app.state.engine) as session:
        order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id!r}")
    return OrderView.model_validate(order)


@app.exception_handler(DatabaseAway)
@app.exception_handler(Unavailable)
@app.exception_handler(LimitReached)
async def answer_try_again(request: Request, error: Exception) -> JSONResponse:
    """Nothing is lost by saying so: the caller keeps the order and sends it again under the same key."""
    return JSONResponse({"detail": "try again"}, status_code=503, headers={"Retry-After": "1"})


@service.on(PaymentTaken, PaymentRefused)
async def note_payment(payment: PaymentTaken | PaymentRefused, tx: Transaction) -> None:
    status = "paid" if isinstance(payment, PaymentTaken) else "refused"
    await tx.execute("update shop_order set status = $1 where id = $2", status, payment.order_id)


app.mount("/", service.health)  # /live, /ready, /health; last, because it answers every other path with 404


async def make_tables() -> None:
    engine = open_engine(service.settings.store_url)
    await service.start(only=())  # Spoolproof's own tables; no relay, no consumer
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    await service.stop()


if __name__ == "__main__":
    asyncio.run(make_tables())
