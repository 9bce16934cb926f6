"""Tokens and what time it is: under a reload after hours of traffic, and for readings that come late."""

from __future__ import annotations

import pytest

from .test_rate_limit import call_of, give_back, tokens_of


def test_new_settings_know_what_time_it_is_after_hours_of_traffic() -> None:
    """What was taken is counted back from the present: from the last idle moment it would be all of a busy day."""
    tokens = tokens_of(100, per_seconds=3_600)
    for number in range(61):
        assert tokens.enter(call_of(), 30.0 * number)
    taken = 100 - tokens.available(1_800.0)

    tokens.configure(rate=50, per_seconds=3_600, burst=100)

    assert pytest.approx(100 - taken) == tokens.available(1_800.0)


def test_a_lowered_burst_is_at_worst_empty() -> None:
    """What had been taken of a larger bucket must not keep everybody out for as long as that took to fill."""
    tokens = tokens_of(1, burst=1_000, wait_seconds_max=0)
    permit = tokens.enter(call_of(cost=1_000), 5.0)

    tokens.configure(rate=1, burst=10, wait_seconds_max=0)
    give_back(tokens, permit, 1_000, 5.0)

    assert 0 == tokens.available(5.0)
    assert tokens.enter(call_of(), 6.0)


def test_a_call_with_an_old_reading_takes_its_token_now() -> None:
    """Taken in the past it would have been refilled already: one more than the burst at once."""
    tokens = tokens_of(1, burst=2, wait_seconds_max=0)
    with pytest.raises(ValueError, match="cost=3"):
        tokens.enter(call_of(cost=3), 5.0)

    tokens.enter(call_of(), 2.0)

    assert 1 == tokens.available(5.0)
