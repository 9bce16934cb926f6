"""A scrape of a running service on the default store and broker, after some traffic."""

from __future__ import annotations

import asyncio
import platform
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import spoolproof
from spoolproof import DeadLetter, Service, event, limits
from spoolproof.health.thread import Address
from spoolproof.policies import Registry
from spoolproof.settings import Settings

QUEUE = "scraped.take"
OUTCOMES = {"handled": 3, "duplicate": 1, "dead_letter": 2, "retried": 1}


@event("scraped.order")
@dataclass
class Order:
    id: int


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        self.samples = {
            (sample.name.removeprefix("spoolproof_"), frozenset(sample.labels.items())): sample.value
            for sample in samples
        }

    def of(self, name: str, label: str) -> float | None:
        labels = {"consumer": QUEUE, "outcome": label} if label in OUTCOMES else {"state": label} if label else {}
        return self.value(name, **labels)

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))


async def scrape(port: int) -> Scrape:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    return Scrape(await asyncio.to_thread(read))


async def until(port: int, wanted: dict[tuple[str, str], float]) -> Scrape:
    """Scrape until the counts of QUEUE's deliveries by outcome, and of dead letters by state, are there."""
    found = Scrape("")
    try:
        async with asyncio.timeout(30):
            while any(found.of(name, label) != value for (name, label), value in wanted.items()):
                await asyncio.sleep(0.05)
                found = await scrape(port)
    except TimeoutError:
        raise AssertionError({key: found.of(*key) for key in wanted}) from None
    return found


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    for often in ("HEALTH_SAMPLE_SECONDS", "HEALTH_SAMPLE_SOON_SECONDS", "HEALTH_PING_SECONDS"):
        monkeypatch.setattr(limits, often, 0.1)
    settings = Settings(data_dir=tmp_path)
    service = Service("scraped", settings=settings, policies=Registry(environ={}))

    @service.on(Order, queue=QUEUE, attempts=3, delays=(1,))
    async def take(order: Order) -> None:
        if order.id == 1:
            raise DeadLetter("no such customer")
        if order.id == 2:
            raise RuntimeError("a bug")

    return service


async def test_a_scrape_shows_what_happened(service: Service) -> None:
    """Every series a dashboard or an alert goes by, with the right value, on what a service runs on by default."""
    before = Scrape("")
    await service.start(health=Address("127.0.0.1", 0))
    try:
        health = service.runtime._health
        assert health is not None
        before = await scrape(health.port)
        for number in range(5):
            await service.publish(Order(number), id=f"scraped-{number}")
        await service.publish(Order(0), id="scraped-0")  # a repetition
        wanted = {("consumer_deliveries_total", outcome): count for outcome, count in OUTCOMES.items()}
        after = await until(health.port, wanted | {("dead_letters", "open"): 2, ("outbox_rows", ""): 0})
    finally:
        await service.stop()

    def grew(name: str, **labels: str) -> float:
        return (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0)

    assert 0 == before.value("consumer_deliveries_total", consumer=QUEUE, outcome="handled")
    assert 1 == grew("inbox_duplicates_total", consumer=QUEUE)
    assert 2 == grew("dead_letters_total", consumer=QUEUE, reason="handler")
    assert 1 == grew("retry_copies_total", consumer=QUEUE, tier="1")
    assert 5 <= grew("consumer_handler_seconds_count", consumer=QUEUE)
    assert 3 == grew("end_to_end_seconds_count", queue=QUEUE)
    assert 6 <= (after.value("relay_published_total", destination="events", outcome="confirmed") or 0)
    assert 6 <= grew("relay_confirm_seconds_count")
    assert (0, 0) == (after.value("relay_paused_destinations"), after.value("outbox_unowned_shards"))
    assert (0, 1) == (
        after.value("consumer_in_flight", consumer=QUEUE),
        after.value("consumer_gate_open", consumer=QUEUE),
    )
    assert 0 < (after.value("last_ack_timestamp_seconds", queue=QUEUE) or 0)
    for dependency in ("db", "embedded"):
        assert 1 == after.value("connection_state", dependency=dependency, state="connected")
        assert 0 == after.value("connection_state", dependency=dependency, state="failed")
        assert 0 == after.value("connection_lost_total", dependency=dependency)
    assert 1 == after.value("processes", role="outbox", state="running")
    assert 0 == after.value("loops_stalled")
    assert 0 < (after.value("data_free_bytes") or 0)
    assert 1 == after.value("build_info", version=spoolproof.__version__, python=platform.python_version())
    assert 0 < grew("event_loop_lag_seconds_count")
