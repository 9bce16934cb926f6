"""The examples do what their texts say, as processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from spoolproof.testing.demo.backend import SALES, Embedded
from spoolproof.testing.demo.shop import Shop

pytestmark = pytest.mark.acceptance

EXAMPLES = Path(__file__).parents[2] / "examples"
ORDER = {"order_id": "o-1", "customer": "Ada", "total_cents": 1250}


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


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """The shop's two services as processes, on SQLite and the embedded broker."""
    backend = Embedded(tmp_path)
    shop = Shop(tmp_path, backend, lease_seconds=3)
    try:
        shop.prepare()
        for process in shop.services:
            process.start()
        for process in shop.services:
            wait(process.answers, 30, f"{process.name} to start")
        yield shop
    finally:
        for process in shop.services:
            process.end()
        shop.close()
        backend.close()


@pytest.fixture
def sales(shop: Shop) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.url, timeout=15) as client:
        yield client


def test_an_order_is_paid_and_the_same_key_again_answers_the_same_order(sales: httpx.Client) -> None:
    """A customer without an answer asks again; that must not be a second order."""
    first = sales.post("/orders", json=ORDER, headers={"Idempotency-Key": "k-1"})
    wait(lambda: sales.get("/orders/o-1").json()["status"] == "paid", 15, "the order to be paid")
    again = sales.post("/orders", json=ORDER, headers={"Idempotency-Key": "k-1"})

    assert (201, "placed") == (first.status_code, first.json()["status"])
    assert (200, "paid") == (again.status_code, again.json()["status"])
    assert first.json()["id"] == again.json()["id"]


def test_a_payment_over_the_limit_is_refused_and_no_dead_letter(sales: httpx.Client) -> None:
    """A refusal is an answer, not a failure."""
    sales.post("/orders", json={**ORDER, "total_cents": 50_001}, headers={"Idempotency-Key": "k-1"})

    wait(lambda: sales.get("/orders/o-1").json()["status"] == "refused", 15, "the order to be refused")


def test_wrong_requests_are_told_what_is_wrong(sales: httpx.Client) -> None:
    """Each is the caller's to mend, so none of them says 503."""
    sales.post("/orders", json=ORDER, headers={"Idempotency-Key": "k-1"})

    other_content = sales.post("/orders", json={**ORDER, "total_cents": 1}, headers={"Idempotency-Key": "k-1"})
    other_key = sales.post("/orders", json=ORDER, headers={"Idempotency-Key": "k-2"})
    no_key = sales.post("/orders", json=ORDER)
    unknown = sales.get("/orders/o-9")

    assert [422, 409, 422, 404] == [one.status_code for one in (other_content, other_key, no_key, unknown)]
    assert "k-1" in other_content.json()["detail"]
    assert "o-1" in other_key.json()["detail"]


def test_sales_asks_to_try_again_while_its_database_is_away(shop: Shop, sales: httpx.Client, tmp_path: Path) -> None:
    """503 keeps the order with the customer; 500 would make them give up. Here a stranger holds the only writer."""
    stranger = sqlite3.connect(tmp_path / f"{SALES}.db", isolation_level=None)
    stranger.execute("begin immediate")
    refused = sales.post("/orders", json=ORDER, headers={"Idempotency-Key": "k-1"})
    stranger.execute("rollback")
    stranger.close()
    accepted = sales.post("/orders", json=ORDER, headers={"Idempotency-Key": "k-1"})

    assert (503, "1") == (refused.status_code, refused.headers["Retry-After"])
    assert 201 == accepted.status_code


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
