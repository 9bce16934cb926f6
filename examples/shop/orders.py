"""The service `sales`, its table, and what its API takes and shows."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from spoolproof import Service, Transaction

service = Service("sales")


class Status(StrEnum):
    """Of an order. The first two are the saga's to leave, the others come from the delivery service."""

    PENDING_PAYMENT = "pending_payment"
    PENDING_SHIPMENT = "pending_shipment"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    RETURNED = "returned"
    CANCELLED = "cancelled"


TABLES = (
    # changed_at, heard_at: seconds; when the order moved, and when the delivery service said anything about it.
    # order by id is to be by code point, which is SQLite's way and on PostgreSQL that of collation "C"
    """create table if not exists shop_order (id text {collation} primary key, customer text not null,
    product_id text not null, quantity integer not null, total_cents integer not null, status text not null,
    requires_manual_review boolean not null, review_reason text not null, delivery_id text,
    changed_at bigint not null, heard_at bigint not null)""",
    "create table if not exists order_history (order_id text not null, event text not null)",
)


class NewOrder(BaseModel):
    """What a customer sends."""

    customer: str = Field(min_length=1, max_length=200)
    product_id: str = Field("lamp", min_length=1, max_length=100)
    quantity: int = Field(1, ge=1, le=1000)
    total_cents: int = Field(gt=0, le=2**31 - 1)


class PlaceOrder(NewOrder):
    """What the saga of an order is started with."""

    order_id: str


class OrderView(NewOrder):
    """What a customer sees. cause: why it was cancelled. delivery_attempts: how often the delivery was asked for."""

    id: str
    status: str
    requires_manual_review: bool = False
    review_reason: str = ""
    delivery_id: str | None = None
    delivery_attempts: int = 0
    cause: str = ""


def now() -> int:
    return int(time.time())


async def find(tx: Transaction, order_id: str) -> dict[str, Any] | None:
    row = await tx.fetch_one("select * from shop_order where id = $1", order_id)
    return None if row is None else dict(row)


async def move(tx: Transaction, order_id: str, before: str, after: str, **more: object) -> bool:
    """Move an order from one status to another, with other columns; False if it was no longer where it was."""
    values = {"status": str(after), "changed_at": now(), "heard_at": now(), **more}
    columns = ", ".join(f"{name} = ${number}" for number, name in enumerate(values, 3))
    sql = f"update shop_order set {columns} where id = $1 and status = $2"
    return bool(await tx.execute(sql, order_id, str(before), *values.values()))
