"""Repeated events: the line of the first is written, the others are counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from spoolproof import limits
from spoolproof.telemetry.events import CATALOGUE, WARNING, Event, listening
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import METER, METRICS
from spoolproof.testing.clock import ManualClock


@pytest.fixture
def away() -> Iterator[type[Event]]:
    """An event that comes with every message while something is away, for one test."""

    class Away(
        Event,
        name="fold.away",
        level=WARNING,
        line="what={what} id={id}",
        counter="fold_away_total",
        labels=("what",),
        folds=("what",),
    ):
        """It is away."""

        what: str
        id: int

    yield Away
    del CATALOGUE["fold.away"], METRICS["fold_away_total"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def folded(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> Folded:
    caplog.set_level(logging.INFO)
    return Folded(clock)


async def test_a_cause_is_written_once_a_minute_with_the_count_of_what_was_not(
    away: type[Event], folded: Folded, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of an hour is sixty lines, not a hundred thousand, and nothing is hidden: the count says how many."""
    heard: list[Event] = []
    with listening(heard.append):
        for number in range(5):
            folded.emit(away(what="db", id=number))  # type: ignore[call-arg]
        await clock.advance(limits.LOG_REPEAT_SECONDS)
        folded.emit(away(what="db", id=5))  # type: ignore[call-arg]

    assert ["fold.away what=db id=0", "fold.away what=db id=5 suppressed=4"] == caplog.messages
    assert 6 == len(heard)
    assert [6.0] == [sample.value for sample in METER.samples() if sample.metric.name == "fold_away_total"]


async def test_each_cause_is_counted_for_itself(
    away: type[Event], folded: Folded, caplog: pytest.LogCaptureFixture
) -> None:
    """A second trouble must not hide behind the first."""
    for what in ("db", "rabbitmq", "db"):
        folded.emit(away(what=what, id=1))  # type: ignore[call-arg]

    assert ["fold.away what=db id=1", "fold.away what=rabbitmq id=1"] == caplog.messages


async def test_a_trouble_that_has_ended_is_news_when_it_comes_again(
    away: type[Event], folded: Folded, caplog: pytest.LogCaptureFixture
) -> None:
    """The second outage within a minute is another outage."""
    told = [folded.emit(away(what="db", id=number)) for number in range(2)]  # type: ignore[call-arg]

    assert [True, False] == told
    assert folded.has_told(away, "db")
    assert 1 == folded.over(away, "db")
    assert not folded.has_told(away, "db")
    assert 0 == folded.over(away, "db")
    folded.emit(away(what="db", id=2))  # type: ignore[call-arg]

    assert ["fold.away what=db id=0", "fold.away what=db id=2"] == caplog.messages


async def test_only_so_many_causes_are_remembered(
    away: type[Event], folded: Folded, caplog: pytest.LogCaptureFixture
) -> None:
    """A cause that names something different each time costs lines, never memory without end."""
    for number in range(limits.LOG_CAUSES_MAX + 1):
        folded.emit(away(what=str(number), id=0))  # type: ignore[call-arg]
    caplog.clear()

    folded.emit(away(what=str(limits.LOG_CAUSES_MAX), id=1))  # type: ignore[call-arg]
    folded.emit(away(what="0", id=1))  # type: ignore[call-arg]

    assert ["fold.away what=0 id=1"] == caplog.messages


async def test_the_line_names_the_place_that_told_it(
    away: type[Event], folded: Folded, caplog: pytest.LogCaptureFixture
) -> None:
    """A log format with file and line must not show this module for everything."""
    folded.emit(away(what="db", id=0), error=ValueError("seen"))  # type: ignore[call-arg]

    assert {"test_folding.py"} == {record.filename for record in caplog.records}
    assert "ValueError: seen" in caplog.text
