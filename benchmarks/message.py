"""The standard message: 256 bytes of JSON, a message id, a type and one trace header; persistent and mandatory."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from spoolproof import event
from spoolproof.destination import to_queue
from spoolproof.message import Message, Outgoing

BODY_BYTES = 256
TYPE = "bench.order.placed"
SOURCE = "bench"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@event(TYPE)
class OrderPlaced(msgspec.Struct):
    """An order; `note` fills it up to the standard size."""

    order_id: str
    customer_id: str
    total_cents: int
    currency: str
    lines: list[dict[str, int]]
    note: str


def order() -> OrderPlaced:
    """Return the standard payload."""
    lines = [{"sku": 1001, "quantity": 2}, {"sku": 1002, "quantity": 1}]
    bare = OrderPlaced("o-00000001", "c-00000001", 1250, "EUR", lines, "")
    missing = BODY_BYTES - len(msgspec.json.encode(bare))
    return msgspec.structs.replace(bare, note="x" * missing)


def body() -> bytes:
    """Return the standard body."""
    return msgspec.json.encode(order())


def document() -> dict[str, Any]:
    """Return the standard payload as a dict, for peers that encode it themselves."""
    found: dict[str, Any] = json.loads(body())
    return found


def message_ids(count: int) -> list[str]:
    """Return as many fresh message ids."""
    return [str(uuid.uuid4()) for _ in range(count)]


def outgoing(message_id: str, encoded: bytes, queue: str) -> Outgoing:
    """Return the standard message for our broker port, addressed to a queue."""
    message = Message(
        id=message_id, type=TYPE, source=SOURCE, time=datetime.now(UTC), body=encoded, traceparent=TRACEPARENT
    )
    return Outgoing(message=message, destination=to_queue(queue))
