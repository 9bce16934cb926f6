"""A stand-in for the delivery service: the same Idempotency-Key is the same delivery, also after a restart. Nothing of
Spoolproof in it.

uvicorn shop.delivery:app --port 8002
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field

from shop.web import Key

FILE = os.environ.get("DELIVERIES_DB", "deliveries.db")
TABLE = (
    "create table if not exists delivery (key text primary key, id text not null, order_id text not null, "
    "state text not null)"
)
ONE = "select id, order_id, state from delivery where "

app = FastAPI(title="delivery")


class NewDelivery(BaseModel):
    order_id: str = Field(min_length=1, max_length=255)


class Cancellation(BaseModel):
    of: str = Field(min_length=1, max_length=255)


class Delivery(BaseModel):
    delivery_id: str
    order_id: str
    state: str


@contextmanager
def deliveries() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(FILE)) as connection, connection:
        connection.execute(TABLE)
        yield connection


@app.post("/deliveries", status_code=201)
def initiate(new: NewDelivery, response: Response, idempotency_key: Key) -> Delivery:
    """Initiate a delivery. Who got no answer asks again under the same key and gets the first one; after a cancellation
    of that key, 410."""
    with deliveries() as table:
        row = (idempotency_key, str(uuid.uuid4()), new.order_id)
        is_new = table.execute("insert or ignore into delivery values (?, ?, ?, 'CREATED')", row).rowcount == 1
        delivery_id, order_id, state = table.execute(ONE + "key = ?", (idempotency_key,)).fetchone()
    if state == "CANCELLED":
        raise HTTPException(410, "it was cancelled already")
    if order_id != new.order_id:
        raise HTTPException(422, f"Idempotency-Key {idempotency_key!r} was used for another order")
    response.status_code = 201 if is_new else 200
    return Delivery(delivery_id=delivery_id, order_id=order_id, state=state)


@app.post("/cancellations")
def cancel(cancellation: Cancellation) -> dict[str, str]:
    """Cancel what was initiated under a key, also before it arrives; 409 for what is under way."""
    with deliveries() as table:
        row = (cancellation.of, str(uuid.uuid4()), "")
        table.execute("insert or ignore into delivery values (?, ?, ?, 'CANCELLED')", row)
        table.execute("update delivery set state = 'CANCELLED' where key = ? and state = 'CREATED'", row[:1])
        (state,) = table.execute("select state from delivery where key = ?", row[:1]).fetchone()
    if state != "CANCELLED":
        raise HTTPException(409, f"it is {state}")
    return {"cancelled": cancellation.of}


@app.put("/deliveries/{delivery_id}/{state}")
def change(delivery_id: str, state: str) -> Delivery:
    """Have a parcel move, for whoever tries the shop out."""
    with deliveries() as table:
        table.execute("update delivery set state = ? where id = ?", (state, delivery_id))
    return _found("id = ?", delivery_id)


@app.get("/deliveries")
def show_delivery(order_id: str) -> Delivery:
    """Show the delivery of an order; one that was not cancelled, if there is any."""
    return _found("order_id = ? order by state = 'CANCELLED'", order_id)


def _found(where: str, value: str) -> Delivery:
    with deliveries() as table:
        row = table.execute(ONE + where, (value,)).fetchone()
    if row is None:
        raise HTTPException(404, f"there is no delivery of {value!r}")
    return Delivery(delivery_id=row[0], order_id=row[1], state=row[2])


@app.get("/health")
async def show_health() -> dict[str, str]:
    return {"status": "ok"}
