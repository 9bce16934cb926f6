"""What sales needs of others, and what protects it from them: one policy per dependency, by its name.

The presets hold the numbers: deliveries open at 40 % of at least 5 calls for 60 s, products at 50 % of at least 10 for
30 s, the database at 60 % of at least 10 for 20 s. `print(products.explain())` shows all of them, and where each comes
from; the environment changes them: `SPOOLPROOF_POLICY_DELIVERY_SERVICE_OPEN_SECONDS=30`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec

from spoolproof.policies import Breaker, Classifier, Policy
from spoolproof.saga import KeyConflict, Refused

T = TypeVar("T")
PRODUCTS_URL = os.environ.get("PRODUCTS_URL", "http://127.0.0.1:8001")
DELIVERY_URL = os.environ.get("DELIVERY_URL", "http://127.0.0.1:8002")
PAYMENTS_URL = os.environ.get("PAYMENTS_URL", "http://127.0.0.1:8003")
CHECK_SECONDS = 1.0
ATTEMPT_SECONDS = 15  #: longer than any attempt of a step lasts

readable = Classifier().transient(msgspec.MsgspecError)  # an answer that nobody can read is none

# A customer waits for this one: 3 s at most, then the saga assumes that one of everything is there.
products = Policy.standard(
    "product-service",
    preset="product-service",
    classify=readable,
    idempotent=True,
    attempts=2,
    timeout_seconds=1,
    deadline_seconds=3,
)

# Nobody waits for these two. The saga tries again for as long as it takes, under one key.
patient = {"classify": readable, "idempotent": True, "timeout_seconds": 2, "deadline_seconds": 8}
payments = Policy.standard("payment-service", preset="classic", **patient)
delivery = Policy.standard("delivery-service", preset="delivery-service", **patient)

database = Policy(
    "database",
    Breaker(),
    preset="database",
    classify=Classifier().permanent(KeyConflict),
    lint_ignore={"W1"},  # the store has time limits of its own
)

http = httpx.AsyncClient(timeout=5)  # the time limits that count are those of the policies


class Stock(msgspec.Struct, frozen=True):
    """How many are left. is_assumed: that is a guess."""

    quantity: int
    is_assumed: bool = False


class Payment(msgspec.Struct, frozen=True):
    payment_id: str


class Delivery(msgspec.Struct, frozen=True):
    delivery_id: str
    state: str


async def stock_of(product_id: str, quantity: int) -> Stock:
    """Ask the product service. Raises Refused for what it does not know."""
    url = f"{PRODUCTS_URL}/products/{quote(product_id, safe='')}/availability"
    response = await http.get(url, params={"quantity": quantity})
    if response.status_code == 404:
        raise Refused(f"there is no product {product_id!r}")
    return read(response, Stock)


async def take_payment(order_id: str, total_cents: int, key: str) -> Payment:
    """Take the money. Raises Refused when the bank says no."""
    body = {"order_id": order_id, "total_cents": total_cents}
    response = await http.post(f"{PAYMENTS_URL}/payments", json=body, headers={"Idempotency-Key": key})
    if response.status_code == 402:
        raise Refused(str(response.json()["detail"]))
    return read(response, Payment)


async def refund(of: str) -> None:
    """Give back what was taken under a key, once, and have nothing taken under it any more."""
    (await http.post(f"{PAYMENTS_URL}/refunds", json={"of": of})).raise_for_status()


async def initiate_delivery(order_id: str, key: str) -> Delivery:
    headers = {"Idempotency-Key": key}
    return read(await http.post(f"{DELIVERY_URL}/deliveries", json={"order_id": order_id}, headers=headers), Delivery)


async def cancel_delivery(of: str) -> None:
    """Cancel what was initiated under a key, and have nothing initiated under it any more."""
    (await http.post(f"{DELIVERY_URL}/cancellations", json={"of": of})).raise_for_status()


async def delivery_of(order_id: str) -> Delivery | None:
    """Return how the delivery of an order stands; None if there is none."""
    response = await http.get(f"{DELIVERY_URL}/deliveries", params={"order_id": order_id})
    return None if response.status_code == 404 else read(response, Delivery)


def read(response: httpx.Response, kind: type[T]) -> T:
    return msgspec.json.decode(response.raise_for_status().content, type=kind)


# --- health checks that shorten an outage -----------------------------------------------------------------------------

Check = Callable[[], Awaitable[object]]


@asynccontextmanager
async def watched(check_database: Check, wake: Callable[[str], Awaitable[object]]) -> AsyncIterator[None]:
    """Watch the dependencies while the block runs. wake: has what waits for a policy of that name go on."""
    checks: list[tuple[Policy, Check]] = [(database, check_database)]
    for policy, url in ((products, PRODUCTS_URL), (payments, PAYMENTS_URL), (delivery, DELIVERY_URL)):
        checks.append((policy, partial(check_health, url)))
    watches = [asyncio.create_task(watch(policy, check, wake)) for policy, check in checks]
    try:
        yield
    finally:
        for one in watches:
            one.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def check_health(url: str) -> None:
    (await http.get(f"{url}/health", timeout=CHECK_SECONDS)).raise_for_status()


async def watch(policy: Policy, check: Check, wake: Callable[[str], Awaitable[object]]) -> None:
    """Let an open breaker probe, and what waits go on, as soon as a dependency is healthy again.

    The check closes nothing: the next real call is the probe, and decides. What began before the dependency was back
    may fail after it: so it is woken for as long as an attempt can last.
    """
    loop = asyncio.get_running_loop()
    wakes_until = 0.0
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        try:
            await check()
            if policy.state == "open":
                policy.probe_now("its health check passed")
            if loop.time() < wakes_until:
                await wake(policy.name)
        except Exception:  # whatever it raises: away, or our own store is
            wakes_until = loop.time() + ATTEMPT_SECONDS
