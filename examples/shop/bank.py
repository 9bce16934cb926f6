"""A bank that is not always there, chosen by order id so that every run of an order meets the same trouble.

Of 100 orders, 5 fail at the first two attempts, and 2 fail until somebody repairs the bank:

    insert into bank_repaired values (1)

It answers from this process. A real one is an HTTP call: make it from a handler without `tx`, so that no transaction
stays open meanwhile, and send `delivery.idempotency_key` with it.
"""

from __future__ import annotations

import zlib

from spoolproof import Delivery, Transaction

LIMIT_CENTS = 50_000


class BankUnreachable(Exception):
    """No answer from the bank: try again."""


async def charge(order_id: str, total_cents: int, delivery: Delivery, tx: Transaction) -> bool:
    """Return whether the bank takes the money; a refusal is an answer. Raises BankUnreachable."""
    share = zlib.crc32(order_id.encode()) % 100
    if share < 2 and await tx.fetch_one("select 1 from bank_repaired") is None:
        raise BankUnreachable(f"no route to the bank of order {order_id}")
    if 2 <= share < 7 and delivery.attempt < 3:
        raise BankUnreachable(f"the bank of order {order_id} is busy (attempt {delivery.attempt})")
    return total_cents <= LIMIT_CENTS
