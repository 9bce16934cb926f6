"""The customers: a process of its own that places orders over HTTP and writes the ledger. No fault is aimed at it.

    python -m spoolproof.testing.demo.clients URL LEDGER SEED ORDERS PER_SECOND

It places the orders 1 to N once it reads `N` on standard input; the end of input means there are no more. A refused or
unanswered order is sent again under the same Idempotency-Key, for as long as it takes: giving up is the orchestrator's
decision.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import httpx

from spoolproof.testing.demo.ledger import Did, Ledger

CONCURRENCY = 16
ANSWER_SECONDS = 2.0  #: a customer's patience; a frozen service is met with it
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 1.0
TOTALS_CENTS = (100, 51_500)  #: 3 of 100 orders are over the limit of 50 000
SOLD_OUT_OF_20 = 7  #: one order of 20 is for what is not there: it may be taken only while nobody can know
LARGE_OF_100 = 50  #: one of 100 is so large that a person is asked


def order_id_of(seed: int, number: int) -> str:
    """Return the id of the n-th order of a run."""
    return f"{seed}-{number:05d}"


class Customers:
    """Places orders, at most 16 at once."""

    def __init__(self, client: httpx.AsyncClient, ledger: Ledger, seed: int) -> None:
        self._client = client
        self._ledger = ledger
        self._seed = seed
        self._random = random.Random(seed)
        self._numbers: asyncio.Queue[int | None] = asyncio.Queue(maxsize=CONCURRENCY)

    async def work(self, orders: int, per_second: float) -> None:
        """Place the orders as they are released; returns when the last is accepted."""
        await asyncio.gather(self._release(orders, per_second), *(self._place_all() for _ in range(CONCURRENCY)))

    async def _release(self, orders: int, per_second: float) -> None:
        loop = asyncio.get_running_loop()
        placed = 0
        while placed < orders and (line := await loop.run_in_executor(None, sys.stdin.readline)):
            while placed < min(int(line), orders):
                placed += 1
                await self._numbers.put(placed)
                await asyncio.sleep(self._random.expovariate(per_second))
        for _ in range(CONCURRENCY):
            await self._numbers.put(None)

    async def _place_all(self) -> None:
        while (number := await self._numbers.get()) is not None:
            await self._place(number)

    async def _place(self, number: int) -> None:
        order_id = order_id_of(self._seed, number)
        body: dict[str, object] = {
            "customer": f"customer {order_id}",
            "product_id": "clock" if number % 20 == SOLD_OUT_OF_20 else "lamp",
            "quantity": 30 if number % 100 == LARGE_OF_100 else 1,
            "total_cents": random.Random(order_id).randint(*TOTALS_CENTS),
        }
        seconds = BACKOFF_FIRST_SECONDS
        while not await self._try(order_id, body):
            await asyncio.sleep(self._random.uniform(seconds / 2, seconds))
            seconds = min(BACKOFF_MAX_SECONDS, 2 * seconds)

    async def _try(self, order_id: str, body: dict[str, object]) -> bool:
        """Send it once; True when there is nothing more to try."""
        self._ledger.write(order_id, Did.SENT)
        try:
            response = await self._client.post("/orders", json=body, headers={"Idempotency-Key": order_id})
        except httpx.TransportError as error:
            self._ledger.write(order_id, Did.UNANSWERED, type(error).__name__)
            return False
        if response.status_code in (200, 201) and response.json()["id"] == order_id:
            self._ledger.write(order_id, Did.ACCEPTED, str(response.status_code))
        elif response.status_code == 409 and "are left" in response.text:
            self._ledger.write(order_id, Did.DECLINED, "409")
        elif response.status_code == 202 or (response.status_code == 503 and "Retry-After" in response.headers):
            self._ledger.write(order_id, Did.REFUSED, str(response.status_code))
            return False
        else:
            self._ledger.write(order_id, Did.OTHERWISE, f"{response.status_code} {response.text[:200]}")
        return True


async def main(url: str, ledger_path: Path, seed: int, orders: int, per_second: float) -> None:
    ledger = Ledger(ledger_path)
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS) as client:
        await Customers(client, ledger, seed).work(orders, per_second)
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
