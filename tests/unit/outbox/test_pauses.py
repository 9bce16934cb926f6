"""Full and missing destinations rest; one probe opens a missing one again."""

from __future__ import annotations

from spoolproof import limits
from spoolproof.destination import EVENTS
from spoolproof.outbox.pauses import Pauses

OVER = limits.UNROUTABLE_PAUSE_COUNT + 1


def missing(pauses: Pauses, now: float = 0.0) -> None:
    for _ in range(OVER):
        pauses.returned(EVENTS, "t", now)


def test_a_full_destination_rests_longer_each_time_and_a_burst_counts_once() -> None:
    """256 nacks of one window are one full queue, not 256."""
    pauses = Pauses()
    for _ in range(256):
        pauses.rest(EVENTS, None, 0.0)

    assert ["events"] == pauses.paused(0.9)
    assert [] == pauses.paused(1.0)

    pauses.rest(EVENTS, None, 1.0)
    assert ["events"] == pauses.paused(2.9)
    assert [] == pauses.paused(3.0)


def test_a_resting_destination_never_rests_over_thirty_seconds() -> None:
    """A queue that has room again is used within 30 s."""
    pauses, now = Pauses(), 0.0
    for _ in range(20):
        pauses.rest(EVENTS, None, now)
        now += limits.NACK_PAUSE_MAX_SECONDS

    assert [] == pauses.paused(now)


def test_a_confirm_opens_a_resting_destination() -> None:
    """Room is room."""
    pauses = Pauses()
    pauses.rest(EVENTS, None, 0.0)

    pauses.confirmed(EVENTS, "t")

    assert pauses.admit(EVENTS, "t", 0.1)


def test_a_barred_type_rests_alone_and_a_confirm_of_it_opens_it() -> None:
    """One type without permission must not hold up the events beside it."""
    pauses = Pauses()
    pauses.rest(EVENTS, "t", 0.0)

    assert ["events t"] == pauses.paused(0.9)
    assert pauses.admit(EVENTS, "other", 0.1)
    assert not pauses.admit(EVENTS, "t", 0.1)

    pauses.confirmed(EVENTS, "other")
    assert not pauses.admit(EVENTS, "t", 0.1)
    pauses.confirmed(EVENTS, "t")
    assert pauses.admit(EVENTS, "t", 0.1)


def test_a_hundred_returns_are_bad_messages_and_one_more_is_a_missing_queue() -> None:
    """Rows of a missing queue must stay, not fill the dead letters."""
    pauses = Pauses()
    for _ in range(OVER - 1):
        pauses.returned(EVENTS, "t", 0.0)
    assert not pauses.is_missing(EVENTS, "t")

    pauses.returned(EVENTS, "t", 1.0)

    assert pauses.is_missing(EVENTS, "t")
    assert ["events t"] == pauses.paused(1.0)
    assert pauses.admit(EVENTS, "other", 1.0)


def test_returns_spread_over_more_than_a_minute_pause_nothing() -> None:
    """A trickle of bad messages is handled one by one."""
    pauses = Pauses()
    for number in range(3 * OVER):
        pauses.returned(EVENTS, "t", float(number))

    assert not pauses.is_missing(EVENTS, "t")


def test_a_missing_pair_is_probed_by_one_row_at_a_time() -> None:
    """A probe of a thousand rows is no probe."""
    pauses = Pauses()
    missing(pauses)
    assert not pauses.admit(EVENTS, "t", 29.9)

    assert pauses.admit(EVENTS, "t", 30.0)
    assert not pauses.admit(EVENTS, "t", 30.0)

    pauses.returned(EVENTS, "t", 30.1)
    assert not pauses.admit(EVENTS, "t", 60.0)
    assert pauses.admit(EVENTS, "t", 60.1)

    pauses.confirmed(EVENTS, "t")
    assert not pauses.is_missing(EVENTS, "t")


def test_a_probe_without_an_answer_frees_its_place() -> None:
    """A broker that died under the probe must not leave the pair paused for ever."""
    pauses = Pauses()
    missing(pauses)
    pauses.admit(EVENTS, "t", 30.0)

    pauses.unanswered(EVENTS, "t", 31.0)

    assert pauses.admit(EVENTS, "t", 32.0)
