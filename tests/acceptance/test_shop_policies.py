"""The shop keeps selling while what it needs is down, slow, flapping or busy: scenarios E1, E2, E4 and E8.

Sales is a process of its own, with the presets as they are shipped; the product and delivery services are faulty
servers, and once the shop's own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from spoolproof.testing.demo.backend import PAYMENTS, SALES, Backend
from spoolproof.testing.demo.shop import Shop
from spoolproof.testing.servers import PostgresServer
from spoolproof.testing.servers.ports import free_port, release_port

sys.path.insert(0, str(Path(__file__).parent))

from faulty_server import Asked, FaultyServer, Mode

pytestmark = pytest.mark.acceptance

EXAMPLES = Path(__file__).parents[2] / "examples"
PRODUCTS_DEADLINE_SECONDS = 3.0  #: how long a customer may wait for the product service, as shop.dependencies says
OUTAGE_SECONDS = 2.5  #: longer than the time limit of one attempt, and than all attempts of a run that fail at once
STOPPED = "stopped"
MISBEHAVIOURS = (STOPPED, Mode.ERROR, Mode.SLOW, Mode.HANG, Mode.FLAPPING, Mode.BUSY)


class Deliveries:
    """What a delivery service does when it is well."""

    def __init__(self) -> None:
        self.by_key: dict[str, tuple[str, str]] = {}  #: Idempotency-Key -> order id, delivery id

    def answer(self, asked: Asked) -> tuple[int, Any]:
        order_id, delivery_id = self.by_key.setdefault(asked.key, (asked.body["order_id"], str(uuid.uuid4())))
        return 201, {"delivery_id": delivery_id, "order_id": order_id, "state": "CREATED"}

    def of(self, order_id: str) -> list[str]:
        return [delivery for order, delivery in self.by_key.values() if order == order_id]


def stock(asked: Asked) -> tuple[int, Any]:
    """There are lamps without end, no clocks, and nothing else."""
    product = asked.path.split("/")[2]
    if product not in ("lamp", "clock"):
        return 404, {"detail": "no such product"}
    left = 1000 if product == "lamp" else 0
    return 200, {"product_id": product, "quantity": left, "is_available": left > 0}


@dataclass
class World:
    """Sales, and the services it needs."""

    sales: httpx.Client
    store: Path
    products: FaultyServer
    delivery: FaultyServer
    deliveries: Deliveries

    def place(self, product_id: str = "lamp", quantity: int = 1) -> httpx.Response:
        order = {"customer": "Ada", "total_cents": 1250, "product_id": product_id, "quantity": quantity}
        return self.sales.post("/orders", json=order, headers={"Idempotency-Key": str(uuid.uuid4())})

    def place_many(self, count: int) -> list[httpx.Response]:
        """Place orders at once."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: self.place(), range(count)))

    def order(self, order_id: str) -> dict[str, Any]:
        return dict(self.sales.get(f"/orders/{order_id}").json())

    def is_delivered(self, order_id: str, seconds: float) -> bool:
        """Whether an order gets its delivery within `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.order(order_id)["delivery_id"]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.store, timeout=5)) as store:
            return [row[0] for row in store.execute(sql)]


@dataclass
class Stores:
    """Where the services of a shop keep their data."""

    store_urls: dict[str, str]
    broker_url: str


@contextmanager
def running_shop(folder: Path, sales_store: str | None = None, **environment: str) -> Iterator[Shop]:
    """Sales and payments as processes, with these environment variables and no others of ours."""
    stores = {name: f"sqlite:///{folder / name}.db" for name in (SALES, PAYMENTS)}
    stores[SALES] = sales_store or stores[SALES]
    backend = cast("Backend", Stores(stores, f"embedded:///{folder / 'broker.db'}"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SPOOLPROOF_", "CB_"))]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        shop = Shop(folder, backend, lease_seconds=3)  # reads the environment
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


@dataclass
class Address:
    """A running shop, and the ports on which it looks for what it needs."""

    shop_url: str
    store: Path
    products_port: int
    delivery_port: int


@contextmanager
def running_sales(folder: Path, sales_store: str | None = None) -> Iterator[Address]:
    products_port, delivery_port = free_port(), free_port()
    urls = {
        "PRODUCTS_URL": f"http://127.0.0.1:{products_port}",
        "DELIVERY_URL": f"http://127.0.0.1:{delivery_port}",
    }
    try:
        with running_shop(folder, sales_store, **urls) as shop:
            yield Address(shop.url, folder / "sales.db", products_port, delivery_port)
    finally:
        release_port(products_port)
        release_port(delivery_port)


@contextmanager
def connected(address: Address) -> Iterator[World]:
    """Bring up what the shop needs, and wait until it has noticed."""
    deliveries = Deliveries()
    with (
        FaultyServer(stock, address.products_port, slow_seconds=1.5) as products,
        FaultyServer(deliveries.answer, address.delivery_port, slow_seconds=2.5) as delivery,
        httpx.Client(base_url=address.shop_url, timeout=15) as sales,
    ):
        world = World(sales, address.store, products, delivery, deliveries)

        def is_well() -> bool:
            order = world.place().json()
            return not order["requires_manual_review"] and world.is_delivered(order["id"], 1)

        wait(is_well, 20, "the shop to be well")
        yield world


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """One shop for all of these tests: each leaves it as well as it was."""
    with running_sales(tmp_path_factory.mktemp("shop")) as address:
        yield address


@pytest.fixture
def world(address: Address) -> Iterator[World]:
    with connected(address) as world:
        yield world


@pytest.fixture(scope="module")
def other_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Another shop, whose breaker of products sees nothing but outages that it opens in, and closes after."""
    with running_sales(tmp_path_factory.mktemp("other_shop")) as address:
        yield address


@pytest.fixture
def other_world(other_address: Address) -> Iterator[World]:
    with connected(other_address) as world:
        yield world


def misbehave(server: FaultyServer, how: str) -> None:
    if how == STOPPED:
        server.stop()
    else:
        server.mode = Mode(how)


# --- E1: the delivery service -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", MISBEHAVIOURS)
def test_an_order_is_taken_at_once_and_delivered_when_the_delivery_service_is_back(world: World, how: str) -> None:
    """E1: the customer has the id at once; the initiation is tried again in the background, and counted."""
    misbehave(world.delivery, how)

    answers = world.place_many(6)
    ids = [answer.json()["id"] for answer in answers]
    wait(lambda: any(world.order(id)["delivery_attempts"] for id in ids), 15, "the first attempt")
    time.sleep(OUTAGE_SECONDS)
    pending = [id for id in ids if world.order(id)["delivery_id"] is None]
    world.delivery.mend()
    mended_at = time.monotonic()
    wait(lambda: all(world.order(id)["delivery_id"] for id in ids), 20, "all deliveries")
    back_seconds = time.monotonic() - mended_at

    assert [201] * 6 == [answer.status_code for answer in answers]
    assert max(answer.elapsed.total_seconds() for answer in answers) < 2
    assert how == Mode.FLAPPING or ids == pending
    assert {id: [world.order(id)["delivery_id"]] for id in ids} == {id: world.deliveries.of(id) for id in ids}
    assert back_seconds < 10
    if how in (STOPPED, Mode.ERROR, Mode.BUSY):
        assert max(world.order(id)["delivery_attempts"] for id in ids) > 1
    assert [] == dead_letters(world)
    check_waits_kept(world.delivery)


# --- E2: the product service ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [how for how in MISBEHAVIOURS if how != Mode.FLAPPING])
def test_availability_is_assumed_flagged_and_checked_when_the_product_service_is_back(
    other_world: World, how: str
) -> None:
    """E2: availability of 1 is assumed, a person may look at the order, and need not once products has answered."""
    world = other_world
    misbehave(world.products, how)

    answers = world.place_many(8)
    later = world.place_many(3)
    ids = [answer.json()["id"] for answer in (*answers, *later)]
    wait(lambda: set(ids) <= set(world.rows("select order_id from order_history")), 20, "the flags to be recorded")
    flagged = [world.order(id) for id in ids]
    asked = set(world.rows("select subject from spoolproof_review_item where state = 'open'"))
    world.products.mend()
    mended_at = time.monotonic()
    wait(lambda: all(world.order(id)["delivery_id"] for id in ids), 20, "all orders to go on")
    back_seconds = time.monotonic() - mended_at

    assert [201] * 11 == [answer.status_code for answer in (*answers, *later)]
    assert max(answer.elapsed.total_seconds() for answer in (*answers, *later)) < PRODUCTS_DEADLINE_SECONDS + 1
    # an open breaker, or a cooldown, makes nobody wait but its probe
    assert min(answer.elapsed.total_seconds() for answer in later) < 2
    assert [True] * 11 == [order["requires_manual_review"] for order in flagged]
    assert all(order["review_reason"].startswith("availability of 1 assumed: ") for order in flagged)
    assert [None] * 11 == [order["delivery_id"] for order in flagged], "nothing leaves on an assumption"
    assert {f"shop.order/availability/{id}" for id in ids} <= asked, "a person may be faster than the product service"
    assert [(False, "")] * 11 == [
        (order["requires_manual_review"], order["review_reason"]) for order in map(world.order, ids)
    ]
    assert back_seconds < 10
    assert [] == dead_letters(world)
    check_waits_kept(world.products)


def test_a_flapping_product_service_costs_no_order(world: World) -> None:
    """E2: every other call fails; the second attempt or the assumption serves the customer."""
    world.products.mode = Mode.FLAPPING

    answers = [world.place() for _ in range(12)]
    world.products.mend()

    assert [201] * 12 == [answer.status_code for answer in answers]
    for answer in answers:
        assert world.is_delivered(answer.json()["id"], 20)
    assert [] == dead_letters(world)


def test_an_order_that_cannot_be_served_after_all_stays_flagged(world: World) -> None:
    """E2: the assumption was wrong; what happens to the order is for a person to decide."""
    world.products.stop()

    order_id = world.place("clock").json()["id"]
    world.products.mend()
    wait(lambda: "are left" in world.order(order_id)["review_reason"], 15, "the answer to be noted")

    order = world.order(order_id)
    assert (True, "0 of 'clock' are left", None) == (
        order["requires_manual_review"],
        order["review_reason"],
        order["delivery_id"],
    )
    assert [] == world.deliveries.of(order_id)


def test_a_product_service_that_answers_decides(world: World) -> None:
    """A refusal is an answer: no fallback may turn it into an order."""
    sold_out = world.place("clock")
    unknown = world.place("anchor")

    assert (409, "0 of 'clock' are left") == (sold_out.status_code, sold_out.json()["detail"])
    assert (409, "there is no product 'anchor'") == (unknown.status_code, unknown.json()["detail"])


# --- E4: the database -------------------------------------------------------------------------------------------------


@pytest.mark.servers
def test_sales_says_503_at_once_while_the_database_is_away_and_recovers(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """E4: temporarily unavailable, with Retry-After; nobody behind sales notices; back within 5 s of the database."""
    with running_sales(tmp_path, postgres_url) as address, connected(address) as world:
        asked = len(world.products.asked)
        postgres.stop()

        refused = [world.place() for _ in range(30)]
        seconds = [answer.elapsed.total_seconds() for answer in refused[-10:]]
        asked_meanwhile = len(world.products.asked) - asked
        postgres.start()
        started_at = time.monotonic()
        wait(lambda: world.place().status_code == 201, 20, "sales to recover")
        back_seconds = time.monotonic() - started_at

    assert {503} == {answer.status_code for answer in refused}
    assert {"temporarily unavailable"} == {answer.json()["detail"] for answer in refused}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 20 for answer in refused)
    assert int(refused[-1].headers["Retry-After"]) > 1, "the breaker knows when it will try again"
    assert statistics.median(seconds) < 0.05
    assert 0 == asked_meanwhile
    assert back_seconds < 5


# --- E8, and the real services ----------------------------------------------------------------------------------------


def test_the_policies_have_the_numbers_of_the_presets(tmp_path: Path) -> None:
    """E8: delivery 40 % of 5 for 60 s, product 50 % of 10 for 30 s, database 60 % of 10 for 20 s."""
    show = (
        "import json; from shop.dependencies import database, delivery, products;"
        "print(json.dumps({policy.name: policy.explain() for policy in (database, delivery, products)}))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF_", "CB_"))}
    path = os.pathsep.join(filter(None, (str(EXAMPLES), clean.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", show], env=clean | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=30
    )

    assert 0 == done.returncode, done.stderr
    shown = json.loads(done.stdout)
    for name, rate, calls, seconds in (
        ("delivery-service", "0.4", "5", "60"),
        ("product-service", "0.5", "10", "30"),
        ("database", "0.6", "10", "20"),
    ):
        for setting in (f"failure_rate={rate}", f"calls_min={calls}", f"open_seconds={seconds}"):
            assert f"{setting} (preset" in shown[name]


def test_one_key_is_one_delivery_also_for_one_that_was_killed(tmp_path: Path) -> None:
    """All four as processes; the delivery service is killed and comes back with what it promised."""
    with running_shop(tmp_path) as shop, httpx.Client(base_url=shop.url, timeout=15) as sales:
        (delivery,) = [process for process in shop.services if process.name == "delivery"]
        url = f"{shop.url_of('delivery')}/deliveries"
        first = place(sales, "o-1")
        wait(lambda: sales.get("/orders/o-1").json()["delivery_id"], 15, "the first delivery")
        delivery.kill()
        second = place(sales, "o-2")
        time.sleep(3)  # the fault's own length: what is over within a second, sales does not hear of before its retry
        delivery.start()
        wait(lambda: sales.get("/orders/o-2").json()["delivery_id"], 20, "the second delivery")
        known = httpx.get(url, params={"order_id": "o-1"})
        sold_out = place(sales, "o-3", product_id="clock")
        headers = {"Idempotency-Key": "k"}
        answers = [httpx.post(url, json={"order_id": "o-9"}, headers=headers) for _ in range(2)]
        cancelled = httpx.post(f"{shop.url_of('delivery')}/cancellations", json={"of": "late"})
        late = httpx.post(url, json={"order_id": "o-8"}, headers={"Idempotency-Key": "late"})

    assert [201, 201, 409] == [answer.status_code for answer in (first, second, sold_out)]
    assert (200, "o-1") == (known.status_code, known.json()["order_id"])
    assert [201, 200] == [answer.status_code for answer in answers]
    assert answers[0].json() == answers[1].json()
    assert [200, 410] == [cancelled.status_code, late.status_code], "cancelled before it arrived"


def place(sales: httpx.Client, order_id: str, **more: Any) -> httpx.Response:
    order = {"customer": "Ada", "total_cents": 1250, **more}
    return sales.post("/orders", json=order, headers={"Idempotency-Key": order_id})


def check_waits_kept(server: FaultyServer) -> None:
    """Nobody asks again before a Retry-After is over; calls under way when it came are no harm."""
    for one in server.turned_away:
        early = [asked for asked in server.asked if one.at + 0.3 < asked.at < one.at + 1.9]
        assert [] == early, f"asked {early[0].at - one.at:.2f} s after a 429 with Retry-After: 2"


def dead_letters(world: World) -> list[Any]:
    return world.rows(
        "select consumer || ' ' || coalesce(error, '') from spoolproof_dead_letter where consumer like 'sales%'"
    )


def wait(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
