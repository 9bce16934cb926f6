"""A dependency that asked for less is left alone: for as long as it asked, within reason."""

from __future__ import annotations

import pytest

from spoolproof.errors import RateLimited
from spoolproof.policies import events
from spoolproof.policies.machines.budget import Cooldown


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, 1.0), (5.0, 5.0), (0.0, 0.0), (300.0, 300.0), (86_400.0, 300.0)]
)
def test_it_lasts_as_long_as_was_asked_up_to_the_maximum(asked: float | None, expected: float) -> None:
    """One wrong Retry-After of a day must not stop a day."""
    cooldown = Cooldown("psp", None)

    cooldown.start(100.0, asked)

    assert 100.0 + expected == cooldown.until


def test_attempts_are_rejected_until_it_ends_and_told_when() -> None:
    cooldown = Cooldown("psp", None)
    cooldown.check(100.0)

    cooldown.start(100.0, 5.0)

    with pytest.raises(RateLimited, match="cooldown") as caught:
        cooldown.check(102.0)
    assert ("psp", "cooldown", 3.0) == (caught.value.policy, caught.value.by, caught.value.retry_after_seconds)
    with pytest.raises(RateLimited):
        cooldown.check(104.999)
    cooldown.check(105.0)


def test_a_shorter_wish_does_not_shorten_it() -> None:
    """Answers to calls made side by side arrive in any order; the strictest holds."""
    cooldown = Cooldown("psp", None)
    cooldown.start(100.0, 60.0)

    cooldown.start(101.0, 1.0)
    cooldown.start(102.0, None)
    assert 160.0 == cooldown.until

    cooldown.start(103.0, 60.0)
    assert 163.0 == cooldown.until


def test_an_event_tells_of_each_that_begins_or_grows(told: list[events.Event]) -> None:
    cooldown = Cooldown("psp", "eu")

    cooldown.start(100.0, 60.0)
    cooldown.start(101.0, 1.0)
    cooldown.start(130.0, 30.0)

    assert [events.CooldownStarted(policy="psp", key="eu", seconds=60.0)] == told


def test_new_bounds_leave_a_running_one_alone() -> None:
    cooldown = Cooldown("psp", None)
    cooldown.start(100.0, 200.0)

    cooldown.configure(cooldown_seconds=2.0, cooldown_seconds_max=10.0)
    assert 300.0 == cooldown.until

    cooldown.start(300.0, None)
    assert 302.0 == cooldown.until
    cooldown.start(302.0, 200.0)
    assert 312.0 == cooldown.until
