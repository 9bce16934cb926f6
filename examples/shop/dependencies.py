"""What sales needs of others, and what protects it from them: one policy per dependency, by its name.

The presets hold the numbers: deliveries open at 40 % of at least 5 calls for 60 s, products at 50 % of at least 10 for
30 s, the database at 60 % of at least 10 for 20 s. `print(products.explain())` shows all of them, and where each comes
from; the environment changes them: `SPOOLPROOF_POLICY_DELIVERY_SERVICE_OPEN_SECONDS=30`.

A service whose address is not set is not used: orders are taken without asking for stock, or nothing is delivered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from spoolproof.policies import Breaker, Classifier, Fallback, Policy, idempotency_key

PRODUCTS_URL = os.environ.get("PRODUCTS_URL")
DELIVERY_URL = os.environ.get("DELIVERY_URL")
HEALTH_CHECK_SECONDS = 1.0


class Stock(BaseModel):
    """How many of a product are left. assumed_because: why that is a guess; empty for an answer."""

    quantity: int
    is_available: bool
    assumed_because: str = ""


class UnknownProduct(Exception):
    """The product service knows no such product: an answer, which no fallback replaces."""


# A customer waits for this one: 3 s at most, then one of everything is assumed to be there.
products = Policy.standard(
    "product-service",
    Fallback(lambda error: Stock(quantity=1, is_available=True, assumed_because=f"{type(error).__name__}: {error}")),
    preset="product-service",
    classify=Classifier().permanent(UnknownProduct).transient(ValidationError),  # an answer nobody can read is none
    idempotent=True,
    attempts=2,
    timeout_seconds=1,
    deadline_seconds=3,
)

# Nobody waits for this one: it is called from a handler.
delivery = Policy.standard(
    "delivery-service",
    preset="delivery-service",
    classify=Classifier().transient(ValidationError),
    idempotent=True,
    timeout_seconds=2,
    deadline_seconds=10,
)

database = Policy(
    "database",
    Breaker(),
    preset="database",
    classify=Classifier().permanent(SQLAlchemyError),  # the statement is wrong; DatabaseAway says what it is itself
    lint_ignore={"W1"},  # the drivers have time limits of their own, see shop.database
)

http = httpx.AsyncClient(timeout=None)  # the time limits are those of the policies


async def stock_of(product_id: str, quantity: int) -> Stock:
    """Ask the product service. Raises UnknownProduct, and what a failed HTTP call raises."""
    url = f"{PRODUCTS_URL}/products/{quote(product_id, safe='')}/availability"
    response = await http.get(url, params={"quantity": quantity})
    if response.status_code == 404:
        raise UnknownProduct(f"there is no product {product_id!r}")
    return Stock.model_validate_json(response.raise_for_status().content)


class Initiated(BaseModel):
    delivery_id: str


async def initiate_delivery(order_id: str) -> str:
    """Initiate the delivery of an order; returns its id. All attempts bring the key of the call they belong to."""
    headers = {"Idempotency-Key": idempotency_key() or order_id}
    response = await http.post(f"{DELIVERY_URL}/deliveries", json={"order_id": order_id}, headers=headers)
    return Initiated.model_validate_json(response.raise_for_status().content).delivery_id


async def check_health(url: str) -> None:
    """Raises what a failed HTTP call raises."""
    response = await http.get(f"{url}/health", timeout=HEALTH_CHECK_SECONDS)
    response.raise_for_status()


@asynccontextmanager
async def watched(check_database: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Watch the dependencies while the block runs."""
    checks = [(database, check_database)]
    for policy, url in ((products, PRODUCTS_URL), (delivery, DELIVERY_URL)):
        if url is not None:
            checks.append((policy, partial(check_health, url)))
    watches = [asyncio.create_task(watch(policy, check)) for policy, check in checks]
    try:
        yield
    finally:
        for one in watches:
            one.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await http.aclose()


async def watch(policy: Policy, check: Callable[[], Awaitable[None]]) -> None:
    """Let an open breaker probe as soon as its dependency is healthy, not only when its reset time is over.

    The check closes nothing: the next real call is the probe, and decides.
    """
    while True:
        await asyncio.sleep(HEALTH_CHECK_SECONDS)
        if policy.state != "open":
            continue
        try:
            await check()
        except Exception:  # whatever it raises: still away
            continue
        policy.probe_now("its health check passed")
