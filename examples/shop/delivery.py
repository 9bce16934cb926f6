"""A stand-in for the delivery service: the same Idempotency-Key is the same delivery, also after a restart.

uvicorn shop.delivery:app --port 8002
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field

FILE = os.environ.get("DELIVERIES_DB", "deliveries.db")
TABLE = "create table if not exists delivery (id text primary key, idempotency_key text unique, order_id text not null)"

app = FastAPI(title="delivery")


class NewDelivery(BaseModel):
    order_id: str = Field(min_length=1, max_length=100)


class Delivery(BaseModel):
    delivery_id: str
    order_id: str


@contextmanager
def deliveries() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(FILE)) as connection, connection:
        connection.execute(TABLE)
        yield connection


@app.post("/deliveries", status_code=201)
def initiate(
    new: NewDelivery,
    response: Response,
    idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
) -> Delivery:
    """Initiate a delivery. A caller who got no answer asks again under the same key and gets the first answer."""
    with deliveries() as table:
        row = (str(uuid.uuid4()), idempotency_key, new.order_id)
        is_new = table.execute("insert or ignore into delivery values (?, ?, ?)", row).rowcount == 1
        known = table.execute("select id, order_id from delivery where idempotency_key = ?", (idempotency_key,))
        delivery_id, order_id = known.fetchone()
    if order_id != new.order_id:
        raise HTTPException(422, f"Idempotency-Key {idempotency_key!r} was used for another order")
    response.status_code = 201 if is_new else 200
    return Delivery(delivery_id=delivery_id, order_id=order_id)


@app.get("/deliveries/{delivery_id}")
def show_delivery(delivery_id: str) -> Delivery:
    with deliveries() as table:
        found = table.execute("select id, order_id from delivery where id = ?", (delivery_id,)).fetchone()
    if found is None:
        raise HTTPException(404, f"there is no delivery {delivery_id!r}")
    return Delivery(delivery_id=found[0], order_id=found[1])


@app.get("/health")
async def show_health() -> dict[str, str]:
    return {"status": "ok"}
