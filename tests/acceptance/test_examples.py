"""The examples do what their texts say, as processes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from spoolproof.testing.demo.backend import PAYMENTS, SALES, Embedded
from spoolproof.testing.demo.shop import Shop

pytestmark = pytest.mark.acceptance

EXAMPLES = Path(__file__).parents[2] / "examples"
ORDER = {"customer": "Ada", "total_cents": 1250}


def test_the_quickstart_prints_what_it_says_it_prints(tmp_path: Path) -> None:
    """The first thing a newcomer runs; twice, because they will."""
    expected = (EXAMPLES / "quickstart" / "expected_output.txt").read_text()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF_", "RABBITMQ_"))}

    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "quickstart" / "shop.py")],
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            timeout=30,
        )

        assert done.returncode == 0, done.stderr
        assert expected == done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop's services as processes, on SQLite and the embedded broker; one for all, since each order is its own."""
    folder = tmp_path_factory.mktemp("shop")
    backend = Embedded(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECONCILE_EVERY", "2s")
        shop = Shop(folder, backend, lease_seconds=3)
    try:
        shop.prepare()
        for process in shop.services:
            process.start()
        for process in shop.services:
            wait(process.answers, 60, f"{process.name} to start")
        yield shop
    finally:
        for process in shop.services:
            process.end()
        shop.close()
        backend.close()


@pytest.fixture
def sales(shop: Shop) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.url, timeout=30) as client:
        yield client


def place(sales: httpx.Client, key: str, **more: object) -> httpx.Response:
    return sales.post("/orders", json={**ORDER, **more}, headers={"Idempotency-Key": key})


def status(sales: httpx.Client, key: str) -> str:
    return str(sales.get(f"/orders/{key}").json()["status"])


def test_an_order_goes_through_and_the_same_key_again_answers_the_same_order(shop: Shop, sales: httpx.Client) -> None:
    """A customer without an answer asks again; that must not be a second order."""
    first = place(sales, "a-1")
    wait(lambda: status(sales, "a-1") == "pending_shipment", 30, "the order to go through")
    again = place(sales, "a-1")
    other_content = place(sales, "a-1", total_cents=1)
    wait(lambda: rows(shop, PAYMENTS, "select * from receipt") == [("a-1", 1250)], 30, "the receipt")

    assert (201, 200) == (first.status_code, again.status_code)
    assert first.json()["id"] == again.json()["id"] == "a-1"
    assert again.json()["delivery_id"] is not None
    assert (422, True) == (other_content.status_code, "a-1" in other_content.json()["detail"])
    assert [422, 404] == [sales.post("/orders", json=ORDER).status_code, sales.get("/orders/o-9").status_code]
    assert [(1250, "taken")] == rows(shop, PAYMENTS, "select total_cents, outcome from payment where order_id = 'a-1'")


def test_an_order_that_cannot_be_paid_is_undone_and_can_be_found(shop: Shop, sales: httpx.Client) -> None:
    """A refusal is an answer, not a failure."""
    place(sales, "b-1", total_cents=50_001)
    wait(lambda: status(sales, "b-1") == "cancelled", 30, "the order to be cancelled")

    failed = "select order_id, total_cents from payment where outcome = 'refused'"
    assert [("b-1", 50_001)] == rows(shop, PAYMENTS, failed)
    assert "over the limit of the card" == sales.get("/orders/b-1").json()["cause"]
    assert [(1,)] == rows(shop, PAYMENTS, "select count(*) from payment where order_id = 'b-1'")
    assert 404 == httpx.get(f"{shop.url_of('delivery')}/deliveries", params={"order_id": "b-1"}).status_code


def test_a_large_order_takes_no_money_before_a_person_said_yes(shop: Shop, sales: httpx.Client) -> None:
    """Asked and answered on the command line, in the commit of the decision."""
    for key in ("c-1", "c-2"):
        place(sales, key, quantity=30)
    open_items = "select subject, id from spoolproof_review_item where kind = 'saga.approval'"
    wait(lambda: len(rows(shop, SALES, open_items)) == 2, 30, "both questions to be asked")
    questions = dict(rows(shop, SALES, open_items))
    before = rows(shop, PAYMENTS, "select * from payment where order_id like 'c-%'")
    for key, action, reason in (("c-1", "approve", "a good customer"), ("c-2", "reject", "who is that?")):
        spoolproof(shop, "review", "resolve", questions[f"shop.order/large_order/{key}"], action, "--reason", reason)
    wait(lambda: status(sales, "c-1") == "pending_shipment", 30, "the first order to go on")
    wait(lambda: status(sales, "c-2") == "cancelled", 30, "the second order to be undone")

    assert [] == before
    assert [("c-1", "taken")] == rows(shop, PAYMENTS, "select order_id, outcome from payment where order_id like 'c-%'")
    assert "who is that?" == sales.get("/orders/c-2").json()["cause"]
    assert not sales.get("/orders/c-1").json()["requires_manual_review"]


def test_reconciliation_follows_the_delivery_service_and_asks_where_it_must_not(
    shop: Shop, sales: httpx.Client
) -> None:
    """No news for 6 h, nothing moved for 24 h: what may move moves, what may not is a question."""
    for key, state in (("d-1", "DELIVERED"), ("d-2", "RETURNED"), ("d-3", "DELIVERED")):
        place(sales, key)
        wait(lambda: status(sales, key) == "pending_shipment", 30, "an order to go through")  # noqa: B023
        id = sales.get(f"/orders/{key}").json()["delivery_id"]
        httpx.put(f"{shop.url_of('delivery')}/deliveries/{id}/{state}").raise_for_status()
    rows(shop, SALES, "update shop_order set heard_at = heard_at - 21601 where id = 'd-1'")
    rows(shop, SALES, "update shop_order set changed_at = changed_at - 86401 where id = 'd-2'")
    asked = "select subject from spoolproof_review_item where kind = 'reconciliation.difference'"
    wait(lambda: status(sales, "d-1") == "delivered", 60, "the repair")
    wait(lambda: rows(shop, SALES, asked) == [("order.status/d-2",)], 30, "the question")
    wait(lambda: rows(shop, SALES, "select order_id from order_history") == [("d-1",)], 30, "the event of the repair")

    assert ["pending_shipment"] * 2 == [status(sales, key) for key in ("d-2", "d-3")], "of d-3 there was news just now"


def rows(shop: Shop, service: str, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(shop.folder / f"{service}.db", timeout=5)) as store, store:
        return list(store.execute(sql))


def spoolproof(shop: Shop, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "spoolproof", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=shop.folder, env=shop.environment(SALES), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_sales_asks_to_try_again_while_its_database_is_away(shop: Shop, sales: httpx.Client) -> None:
    """503 keeps the order with the customer; 500 would make them give up. Here a stranger holds the only writer."""
    stranger = sqlite3.connect(shop.folder / f"{SALES}.db", isolation_level=None)
    stranger.execute("begin immediate")
    refused = place(sales, "e-1")
    stranger.execute("rollback")
    stranger.close()
    accepted = place(sales, "e-1")

    assert (503, "1") == (refused.status_code, refused.headers["Retry-After"])
    assert 201 == accepted.status_code


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
