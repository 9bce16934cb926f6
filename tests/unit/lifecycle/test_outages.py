"""What the log says of an outage: both ends, in words, and little between."""

from __future__ import annotations

import logging

import pytest

from spoolproof.errors import BrokerUnavailable, StoreUnavailable, Unavailable
from spoolproof.lifecycle.outages import Outages
from spoolproof.testing.clock import ManualClock

GONE = StoreUnavailable("postgresql://db/shop: connection refused")


class Bench:
    """Outages and the one that knows. `away`: the classes of what is away."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.away: set[type[Unavailable]] = set()
        self.outages = Outages(self.clock, lambda error: type(error) in self.away)


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO)
    return Bench()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


async def test_both_ends_of_an_outage_are_one_line_each_at_one_level(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Seven loops fail several times a second; a log at WARNING shows what began, that it ended, and nothing else."""
    for _ in range(10):
        for loop in ("membership", "relay", "policies.facts"):
            bench.outages.met(loop, GONE)
        await bench.clock.advance(1.0)
    await bench.clock.advance(7.0)
    bench.outages.passed()
    bench.outages.passed()

    assert [
        (
            "WARNING",
            "outage.began loop=membership error=postgresql://db/shop: connection refused: "
            "loops that need it try again every second",
        ),
        ("WARNING", "outage.ended what=StoreUnavailable seconds=9.0 failed_turns=30"),
    ] == told(caplog)


async def test_an_outage_is_not_over_while_the_dependency_is_away(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A turn that found nothing to do passes without touching the database; "resumed" would then be a lie."""
    bench.away.add(StoreUnavailable)
    bench.outages.met("relay", GONE)
    caplog.clear()
    await bench.clock.advance(30.0)
    bench.outages.passed()
    assert [] == told(caplog)

    bench.away.clear()
    bench.outages.passed()

    assert 1 == len(told(caplog))


async def test_an_outage_is_not_over_while_any_loop_still_meets_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that answers reads and refuses writes: the loops that read pass, the one that writes does not."""
    bench.outages.met("membership", GONE)
    caplog.clear()
    for _ in range(20):
        await bench.clock.advance(1.0)
        bench.outages.passed()
        bench.outages.met("membership", GONE)

    assert [] == told(caplog)


async def test_an_outage_is_not_over_while_a_turn_still_waits_for_its_answer(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A locked file takes five seconds to say no, and other loops only read it: "ended" once per try would be a lie."""
    bench.outages.met("membership", GONE)
    caplog.clear()
    for _ in range(3):
        for _ in range(12):
            await bench.clock.advance(0.5)
            bench.outages.passed()
        bench.outages.met("membership", GONE)

    assert [] == told(caplog)


async def test_a_long_outage_is_told_of_once_a_minute(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever opens the log an hour later must find it without scrolling to the first line."""
    for _ in range(121):
        bench.outages.met("membership", GONE)
        await bench.clock.advance(1.0)

    assert [
        "outage.lasts seconds=60 failed_turns=61 error=postgresql://db/shop: connection refused",
        "outage.lasts seconds=120 failed_turns=121 error=postgresql://db/shop: connection refused",
    ] == [text for _, text in told(caplog)][1:]


async def test_two_dependencies_are_two_outages(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The broker's outage must not hide in the database's."""
    bench.outages.met("relay", GONE)
    bench.outages.met("relay", BrokerUnavailable("amqp://mq: connection refused"))
    await bench.clock.advance(10.0)
    bench.away.add(BrokerUnavailable)
    bench.outages.passed()

    assert ["outage.began", "outage.began", "outage.ended"] == [text.split()[0] for _, text in told(caplog)]
    assert "what=StoreUnavailable" in told(caplog)[-1][1]
