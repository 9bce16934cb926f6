"""Repeated log lines: the first is written, the others are counted."""

from __future__ import annotations

import logging

import pytest

from spoolproof import limits
from spoolproof.folding import FoldedLog
from spoolproof.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> FoldedLog:
    caplog.set_level(logging.INFO)
    return FoldedLog(logging.getLogger("spoolproof.test"), clock)


async def test_a_cause_is_written_once_a_minute_with_the_count_of_what_was_not(
    log: FoldedLog, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of an hour is sixty lines, not a hundred thousand, and nothing is hidden: the count says how many."""
    for _ in range(5):
        log.warning("db", "loop.waiting name=%s", "relay")
    await clock.advance(limits.LOG_REPEAT_SECONDS)
    log.warning("db", "loop.waiting name=%s", "relay")

    assert ["loop.waiting name=relay", "loop.waiting name=relay suppressed=4"] == caplog.messages


async def test_each_cause_is_counted_for_itself(log: FoldedLog, caplog: pytest.LogCaptureFixture) -> None:
    """A second trouble must not hide behind the first."""
    log.warning("db", "a")
    log.error("rabbitmq", "b")
    log.warning("db", "a")

    assert [("WARNING", "a"), ("ERROR", "b")] == [(one.levelname, one.getMessage()) for one in caplog.records]


async def test_a_trouble_that_has_ended_is_news_when_it_comes_again(
    log: FoldedLog, caplog: pytest.LogCaptureFixture
) -> None:
    """The second outage within a minute is another outage."""
    log.warning("db", "away")
    log.warning("db", "away")

    assert "db" in log
    assert 1 == log.over("db")
    assert "db" not in log
    assert 0 == log.over("db")
    log.warning("db", "away")

    assert ["away", "away"] == caplog.messages


async def test_only_so_many_causes_are_remembered(log: FoldedLog, caplog: pytest.LogCaptureFixture) -> None:
    """A cause that names something different each time costs lines, never memory without end."""
    for number in range(limits.LOG_CAUSES_MAX + 1):
        log.warning(number, "x")
    caplog.clear()

    log.warning(limits.LOG_CAUSES_MAX, "newest")
    log.warning(0, "oldest")

    assert ["oldest"] == caplog.messages


async def test_the_line_names_the_place_that_wrote_it(log: FoldedLog, caplog: pytest.LogCaptureFixture) -> None:
    """A log format with file and line must not show this module for everything."""
    log.warning("a", "x")
    log.error("b", "y", exc_info=ValueError("seen"))

    assert {"test_folding.py"} == {record.filename for record in caplog.records}
    assert "ValueError: seen" in caplog.text
