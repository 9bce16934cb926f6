"""What follows a failed attempt, as a table."""

from __future__ import annotations

import pytest

from spoolproof import DeadLetter, Defer, RetryLater
from spoolproof.consumer.failure import Decision, GiveUp, RunAgain, SendCopy, decide

DELAYS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0)
BUG = ValueError("bug")


@pytest.mark.parametrize(
    ("error", "attempt", "decision"),
    [
        (BUG, 1, RunAgain(0.1, counts=True)),
        (BUG, 2, SendCopy(1, counts=True)),
        (BUG, 3, SendCopy(5, counts=True)),
        (BUG, 7, SendCopy(900, counts=True)),
        (BUG, 8, GiveUp("handler")),
        (BUG, 9, GiveUp("handler")),
        (TimeoutError(), 1, RunAgain(0.1, counts=True)),
        (DeadLetter("never"), 1, GiveUp("handler")),
        (RetryLater(0), 1, SendCopy(1, counts=True)),
        (RetryLater(7), 1, SendCopy(15, counts=True)),
        (RetryLater(10**6), 1, SendCopy(21600, counts=True)),
        (RetryLater(7), 8, GiveUp("handler")),
        (Defer(0.5), 1, RunAgain(0.5, counts=False)),
        (Defer(2), 8, RunAgain(2.0, counts=False)),
        (Defer(3), 8, SendCopy(5, counts=False)),
    ],
)
def test_each_failure_has_one_consequence(error: Exception, attempt: int, decision: Decision) -> None:
    """S9: what is deferred is never counted, also at the last attempt."""
    assert decision == decide(error, attempt, attempts=8, delays_seconds=DELAYS)


def test_a_short_list_of_delays_repeats_its_last() -> None:
    """`delays=(1,)` with 8 attempts must not run out of delays."""
    assert SendCopy(1, counts=True) == decide(BUG, 7, attempts=8, delays_seconds=(1.0,))


def test_a_single_attempt_goes_straight_to_the_dead_letters() -> None:
    """`attempts=1` means once."""
    assert GiveUp("handler") == decide(BUG, 1, attempts=1, delays_seconds=DELAYS)
