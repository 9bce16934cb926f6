"""The service that takes and gives back money over HTTP, and writes a receipt for every order that was confirmed.

Make its tables once, then run it:

    python -m shop.payments
    uvicorn shop.payments:app --port 8003
"""

from __future__ import annotations

import asyncio
import zlib

import msgspec
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from shop.events import OrderConfirmed
from shop.web import Key, answer_try_again
from spoolproof import Delivery, Service, Transaction
from spoolproof.saga import Refused

service = Service("payments")
app = FastAPI(title="payments", lifespan=service.lifespan)
answer_try_again(app)

LIMIT_CENTS = 50_000
TABLES = (
    # a row each time; outcome: taken, refused, refunded. Nothing in it keeps anybody from being charged twice: that is
    # the task of `receive`, whose keys are in the same commit
    "create table if not exists payment (order_id text not null, total_cents integer not null, outcome text not null)",
    "create table if not exists receipt (order_id text not null, total_cents integer not null)",
    "create table if not exists printer_repaired (repaired integer not null)",
)


class NewPayment(BaseModel):
    order_id: str = Field(min_length=1, max_length=255)
    total_cents: int = Field(gt=0)


class Refund(BaseModel):
    of: str = Field(min_length=1, max_length=255)


class Payment(msgspec.Struct):
    order_id: str
    total_cents: int
    outcome: str


receive = service.keyed("payment", of=Payment)


@app.post("/payments", status_code=201)
async def take(new: NewPayment, idempotency_key: Key) -> dict[str, str]:
    """Take the money. The same key again gets the first answer; one whose refund came first gets 410."""

    async def charge() -> Payment:
        outcome = "taken" if new.total_cents <= LIMIT_CENTS else "refused"
        return await note(tx, Payment(new.order_id, new.total_cents, outcome))

    async with service.transaction() as tx:
        try:
            payment = await receive.do(tx, idempotency_key, charge)
        except Refused as refusal:
            raise HTTPException(410, str(refusal)) from refusal
    if (payment.order_id, payment.total_cents) != (new.order_id, new.total_cents):
        raise HTTPException(422, f"Idempotency-Key {idempotency_key!r} was used for another payment")
    if payment.outcome == "refused":
        raise HTTPException(402, "over the limit of the card")
    return {"payment_id": idempotency_key}


@app.post("/refunds")
async def give_back(refund: Refund) -> dict[str, bool]:
    """Give back what was taken under a key, once, and take nothing under it any more: a late call gets 410."""

    async def undo(payment: Payment) -> None:
        if payment.outcome == "taken":
            await note(tx, Payment(payment.order_id, payment.total_cents, "refunded"))

    async with service.transaction() as tx:
        return {"had_landed": await receive.compensate(tx, refund.of, undo)}


async def note(tx: Transaction, payment: Payment) -> Payment:
    sql = "insert into payment values ($1, $2, $3)"
    await tx.execute(sql, payment.order_id, payment.total_cents, payment.outcome)
    return payment


class PrinterAway(Exception):
    """No receipt can be printed: try again."""


# Short delays, so that the demo ends soon. The defaults, 8 attempts over 21 minutes, are made for real outages.
@service.on(OrderConfirmed, attempts=3, delays=(1,))
async def write_receipt(order: OrderConfirmed, delivery: Delivery, tx: Transaction) -> None:
    """The receipt and the note that this event is done: one commit.

    Of 100 orders 5 fail at the first two attempts, and 2 until `insert into printer_repaired values (1)`.
    """
    share = zlib.crc32(order.order_id.encode()) % 100
    is_broken = share < 2 and await tx.fetch_one("select 1 from printer_repaired") is None
    if is_broken or (2 <= share < 7 and delivery.attempt < 3):
        raise PrinterAway(f"the printer of order {order.order_id} does not answer (attempt {delivery.attempt})")
    # nothing here keeps an order from getting two receipts: that is the inbox's task
    await tx.execute("insert into receipt values ($1, $2)", order.order_id, order.total_cents)


app.mount("/", service.health)


async def make_tables() -> None:
    await service.start(only=())  # Spoolproof's own tables; no relay, no consumer
    async with service.transaction() as tx:
        for table in TABLES:
            await tx.execute(table)
    await service.stop()


if __name__ == "__main__":
    asyncio.run(make_tables())
