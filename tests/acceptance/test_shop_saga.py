"""The saga of the shop under every fault of each of its steps: no order is left with money and no parcel."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from spoolproof.saga import Refused
from spoolproof.testing.torture import torture

pytestmark = pytest.mark.acceptance

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from shop import orders, reconciliation, saga  # noqa: E402
from shop.dependencies import Delivery, Payment, Stock  # noqa: E402


class World:
    """The other services, as they keep what they promise: a thing once for its key, and never after its undo."""

    def __init__(self) -> None:
        self.state: dict[str, str] = {}

    async def stock_of(self, product_id: str, quantity: int) -> Stock:
        return Stock(quantity=100)

    async def take_payment(self, order_id: str, total_cents: int, key: str) -> Payment:
        self._do(key, "paid")
        return Payment(key)

    async def refund(self, of: str) -> None:
        self.state[of] = "undone"

    async def initiate_delivery(self, order_id: str, key: str) -> Delivery:
        self._do(key, "delivered")
        return Delivery(key, "CREATED")

    async def cancel_delivery(self, of: str) -> None:
        self.state[of] = "undone"

    def _do(self, key: str, what: str) -> None:
        if self.state.setdefault(key, what) == "undone":
            raise Refused(f"{key} was undone before it came")


@pytest.mark.parametrize("quantity", [1, 30], ids=["one", "large"])
async def test_an_order_is_whole_or_undone(monkeypatch: pytest.MonkeyPatch, quantity: int) -> None:
    """A large one is asked about first; the answer is yes."""
    world = World()
    for module in (saga, reconciliation):
        monkeypatch.setattr(module, "dependencies", world)

    async def effects(tx: orders.Transaction) -> dict[str, int]:
        rows = await tx.fetch("select id from shop_order where status <> 'cancelled'")
        return {**Counter(world.state.values()), "ordered": len(rows), "undone": 0}

    async with orders.service.test(store="sqlite") as app:
        async with app.transaction() as tx:
            for table in orders.TABLES:
                await tx.execute(table.format(collation=""))
        report = await torture(
            saga.order,
            lambda id: orders.PlaceOrder(
                order_id=id, customer="Ada", product_id="lamp", quantity=quantity, total_cents=1
            ),
            effects=effects,
            fakes=[world],
        )

    assert report.ok, str(report)
