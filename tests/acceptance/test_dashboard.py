"""The dashboard as people have it: in a real browser, with a keyboard, two at once, and without its store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from spoolproof.testing.servers import PostgresServer
from spoolproof.web.pages import PAGES

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]
CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).with_name("vendor") / "axe.min.js"
PASSWORD = "a-long-password"
PATIENCE_MS = 60_000
SHOP = '''
import asyncio
from contextlib import asynccontextmanager

import msgspec
from starlette.applications import Starlette
from starlette.routing import Mount

from spoolproof import Park, Service, Transaction, event
from spoolproof.policies import Breaker, Bulkhead, Policy
from spoolproof.review.actions import Decision
from spoolproof.web.people import Principal, Role

service = Service("shop")
bank = Policy("bank", Breaker(), Bulkhead(4))
products = service.cache("products", of=dict)


@event("shop.order.placed")
class OrderPlaced(msgspec.Struct):
    id: str


@service.on(OrderPlaced, queue="billing", attempts=1)
async def bill(order: OrderPlaced, tx: Transaction) -> None:
    if order.id == "o-park":
        return Park("What does this mean?")
    raise RuntimeError("the card <script>alert(1)</script> was refused")


@service.reviews.action("order.flagged", "approve")
async def approve(decision: Decision, tx: Transaction) -> None:
    """Lets it go."""


@service.every("1h", queue="report")
async def report() -> None: ...


async def seed():
    await service.start()
    for n in range(3):
        await service.publish(OrderPlaced(f"o-{n}"), key=f"k-{n}")
    await service.publish(OrderPlaced("o-park"))
    for n in range(2):
        await service.reviews.open("order.flagged", f"r-{n}", f"May {n} go?", evidence={"n": n, "why": ["a", "b"]})
    while len((await service.dead_letters.ls())["dead_letters"]) < 3 or len((await service.reviews.ls())["items"]) < 3:
        await asyncio.sleep(0.05)
    await service.drain(1)
    await service.stop()


app = Starlette(
    routes=[Mount("/ops", service.dashboard(auth=lambda request: Principal("Ann", Role.ADMIN)))],
    lifespan=service.lifespan,
)
if __name__ == "__main__":
    asyncio.run(seed())
'''


class Watched:
    """A page of a browser that notes what it should not do: complain, or ask another host for anything."""

    def __init__(self, page: Any, base: str) -> None:
        self.page, self.base = page, base
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda one: self.faults.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.base).netloc:
            self.faults.append(f"asked {request.url}")

    def open(self, path: str) -> None:
        answer = self.page.goto(f"{self.base}{path}")
        assert 200 == answer.status, f"{path}: {answer.status}"


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    done = subprocess.run([sys.executable, "shop.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert 0 == done.returncode, done.stderr
    return tmp_path


@contextmanager
def dashboard(shop: Path, **environment: str) -> Iterator[dict[str, Any]]:
    """Run `spoolproof dashboard`; gives its document."""
    command = [sys.executable, "-m", "spoolproof", "dashboard", "--port", "0", "--service", "shop:service", "--json"]
    log, environment = shop / "dashboard.log", {**os.environ, **environment}
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=shop, env=environment, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            sys.stderr.write(log.read_text())  # shown where the test fails


def test_every_page_is_quiet_reachable_and_fits(shop: Path, browser: Any) -> None:
    """No script error, no report of the content policy, nothing from elsewhere, no fault that axe finds."""
    with dashboard(shop) as told:
        context = browser.new_context()
        seen = Watched(context.new_page(), told["url"])
        seen.page.goto(told["login_url"])
        assert "token" not in seen.page.url
        used = seen.page.request.get(told["login_url"])
        assert 401 == used.status
        letters = seen.page.request.get(f"{told['url']}/dead-letters/list").text()
        letter = letters.partition('<a href="/dead-letters/0')[2].partition('"')[0]
        seen.open("/reviews")
        review = seen.page.locator("a.open").first.get_attribute("href")
        paths = [page.path for page in PAGES if "{" not in page.path and "confirm" not in page.path]
        paths += [review, f"/dead-letters/0{letter}", f"/dead-letters/0{letter}/edit"]
        paths += ["/dead-letters/confirm?verb=replay", "/message?q=k-1", "/dead-letters/list?state=held"]
        for width, scheme in ((1280, "light"), (360, "dark")):
            seen.page.set_viewport_size({"width": width, "height": 900})
            seen.page.emulate_media(color_scheme=scheme)
            for path in paths:
                seen.open(path)
                assert width >= seen.page.evaluate("document.documentElement.scrollWidth"), f"{path} at {width}"
                seen.page.evaluate(AXE.read_text())
                found = seen.page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
                faults = [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
                assert [] == faults, f"{path} at {width}, {scheme}"
        assert [] == seen.faults
        context.close()


def test_an_item_is_decided_by_keyboard_alone(shop: Path, browser: Any) -> None:
    with dashboard(shop) as told:
        context = browser.new_context()
        seen = Watched(context.new_page(), told["url"])
        seen.page.goto(told["login_url"])
        keys = seen.page.keyboard

        def tab_to(selector: str) -> None:
            for _ in range(60):
                if seen.page.evaluate("document.activeElement.matches(" + json.dumps(selector) + ")"):
                    return
                keys.press("Tab")
            raise AssertionError(f"nobody comes to {selector} by Tab")

        keys.press("g")
        keys.press("r")
        seen.page.wait_for_url("**/reviews")
        keys.press("j")
        keys.press("Enter")
        seen.page.wait_for_url("**/reviews/*")
        tab_to("#claim")
        keys.press("Enter")
        seen.page.wait_for_selector(".flash.ok")
        tab_to("#reason")
        keys.type("I called them")
        tab_to("button[name=action]:not([disabled])")
        keys.press("Enter")
        seen.page.wait_for_selector(".flash.ok >> text=Decided: approve")
        assert [] == seen.faults
        context.close()


def test_of_two_people_the_second_is_told_who_has_it(shop: Path, browser: Any) -> None:
    """Whoever has the page open sees it by itself; whoever presses all the same is told."""
    with dashboard(shop, SPOOLPROOF_DASHBOARD_PASSWORD=PASSWORD) as told:
        pages = []
        for name in ("Ann", "Ben"):
            context = browser.new_context(http_credentials={"username": name, "password": PASSWORD})
            pages.append(Watched(context.new_page(), told["url"]))
        ann, ben = pages
        for one in pages:
            one.open("/reviews")
            one.page.locator("a.open").first.click()
            one.page.wait_for_selector("#claim")
        ben.page.route("**/live", lambda route: route.abort())  # a page that has not heard

        ann.page.click("#claim")
        ann.page.wait_for_selector("text=You have it for")
        ben.page.evaluate("document.querySelector('#claim').click()")
        ben.page.wait_for_selector(".flash.bad >> text=is claimed by Ann until")
        ben.page.wait_for_selector("text=Ann has this item")
        assert ben.page.is_disabled("button[name=action]")

        ann.page.click("text=Give it back")
        ann.page.wait_for_selector("#claim")
        ben.page.unroute("**/live")
        ben.page.reload()
        ben.page.wait_for_selector("#chip.live")
        ann.page.click("#claim")
        ben.page.wait_for_selector("text=Ann has this item")  # by itself
        assert [] == ann.faults
        for one in pages:
            one.page.context.close()


def test_an_open_page_stays_readable_while_the_store_is_away(
    tmp_path: Path, browser: Any, postgres: PostgresServer, postgres_url: str
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "SPOOLPROOF_STORE": postgres_url,
        "SPOOLPROOF_MIGRATE": "auto",
        "PYTHONPATH": str(tmp_path),
    }
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--timeout-graceful-shutdown", "1"]
    subprocess.run([sys.executable, "shop.py"], cwd=tmp_path, env=environment, check=True, timeout=60)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("Uvicorn running" in line for line in process.stderr)
            context = browser.new_context()
            seen = Watched(context.new_page(), f"http://127.0.0.1:{port}/ops")
            seen.open("/reviews")
            seen.page.locator("a.open").first.click()
            seen.page.wait_for_selector("#chip.live")

            postgres.stop()
            seen.page.wait_for_selector(".banner.bad >> text=The store is away")
            seen.page.wait_for_selector("#chip.late")
            assert "This process, live" in seen.page.inner_text("main")
            assert seen.page.is_disabled("button[name=action]")
            assert "May" in seen.page.inner_text("h1")

            postgres.start()
            seen.page.wait_for_selector("#chip.live")
            assert seen.page.is_enabled("button[name=action]")
            context.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
