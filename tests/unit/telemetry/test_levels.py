"""How loud lines are: a healthy service is quiet, and who hears of a trouble hears of its end."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

import pytest

import spoolproof
from spoolproof import Service
from spoolproof.settings import Settings
from spoolproof.telemetry.events import CATALOGUE

ROOT = Path(spoolproof.__file__).parent
PAIRS = (
    ("alert.fired", "alert.resolved"),
    ("alert.undelivered", "alert.delivered"),
    ("breaker.opened", "breaker.closed"),
    ("broker.away", "broker.back"),
    ("broker.barred", "broker.admitted"),
    ("broker.connection.blocked", "broker.connection.unblocked"),
    ("cache.left", "cache.returned"),
    ("consumer.gate.closed", "consumer.gate.opened"),
    ("consumer.key_held", "consumer.key_released"),
    ("consumer.outbox_full", "consumer.outbox_has_room"),
    ("health.unready", "health.ready"),
    ("loop.failed", "loop.recovered"),
    ("outage.began", "outage.ended"),
    ("retry.copy_waits", "retry.copies_flow"),
    ("spool.started", "spool.drained"),
    ("sqs.away", "sqs.back"),
    ("store.waiting", "store.reached"),
    ("topology.refused", "topology.as_planned"),
)


@pytest.mark.parametrize(("trouble", "end"), PAIRS)
def test_both_ends_of_a_trouble_are_as_loud(trouble: str, end: str) -> None:
    """Whoever was woken by a line at `error` and filters by level would never see that it is over."""
    for file in ROOT.rglob("events.py"):
        import_module(".".join(("spoolproof", *file.relative_to(ROOT).with_suffix("").parts)))
    assert CATALOGUE[trouble].level == CATALOGUE[end].level


async def test_a_healthy_start_alarms_nobody_and_says_what_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first line that is read in any incident names release, store, broker, roles and handlers."""
    caplog.set_level(logging.INFO)
    service = Service("shop", settings=Settings(data_dir=tmp_path))

    @service.on("order.placed")
    async def book(order: dict) -> None: ...  # type: ignore[type-arg]

    await service.start()
    await service.drain(1)
    await service.stop()

    lines = [record for record in caplog.records if record.name.startswith("spoolproof")]
    assert [] == [line.getMessage() for line in lines if line.levelno > logging.INFO]
    (start,) = [line.getMessage() for line in lines if "service.started" in line.getMessage()]
    for word in (f"release={spoolproof.__version__}", "store=sqlite:///", "broker=embedded:///", "relay", "shop.book("):
        assert word in start
