"""The breaker's machine: when it opens, for how long, and how it closes."""

from __future__ import annotations

import pytest

from spoolproof.errors import BreakerOpen
from spoolproof.policies import Breaker, Consecutive, Rate, Slow
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS, Kind, verdict_of

from .breakers import FAILED, NEUTRAL, Fixed, call, changes_of, circuit, fail, opened, rejected, reload

# --- when it opens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT])
def test_an_outage_opens_it(kind: Kind) -> None:
    machine = circuit(Breaker(Consecutive(2)))

    call(machine, 0.0, verdict_of(kind))
    call(machine, 0.0, verdict_of(kind))

    assert "open" == machine.state(0.0)


@pytest.mark.parametrize(
    ("kind", "ends_the_streak"),
    [
        (Kind.PERMANENT, True),
        (Kind.BUG, False),
        (Kind.RATE_LIMITED, False),
        (Kind.LOCAL, False),
        (Kind.DEADLINE, False),
        (Kind.CANCELLED, False),
    ],
)
def test_whatever_says_nothing_of_an_outage_never_opens_it(kind: Kind, ends_the_streak: bool) -> None:
    """A refusal is an answer; the others are no news of the dependency."""
    machine = circuit(Breaker(Consecutive(2)))
    for _ in range(5):
        call(machine, 0.0, verdict_of(kind))
    assert "closed" == machine.state(0.0)

    fail(machine, 0.0)
    call(machine, 0.0, verdict_of(kind))
    fail(machine, 0.0)

    assert ("closed" if ends_the_streak else "open") == machine.state(0.0)


def test_a_success_never_opens_it_and_the_next_failure_does() -> None:
    """Nineteen failures of nineteen are too few; the twentieth call may be a success and complete the volume."""
    machine = circuit(Breaker(Rate(0.5, calls_min=20)))
    fail(machine, 0.0, 19)

    call(machine, 0.0)
    assert "closed" == machine.state(0.0)

    fail(machine, 0.0)
    assert "open" == machine.state(0.0)


def test_either_rule_is_enough_with_or() -> None:
    for verdicts in ([FAILED] * 3, [FAILED, FAILED, SUCCESS, FAILED, FAILED]):
        machine = circuit(Breaker(Rate(0.8, calls_min=5) | Consecutive(3)))
        for verdict in verdicts:
            call(machine, 0.0, verdict)
        assert "open" == machine.state(0.0)


def test_both_rules_are_needed_with_and() -> None:
    machine = circuit(Breaker(Rate(0.5, calls_min=6) & Consecutive(3)))
    fail(machine, 0.0, 5)
    assert "closed" == machine.state(0.0)

    call(machine, 0.0)
    fail(machine, 0.0, 2)
    assert "closed" == machine.state(0.0)

    fail(machine, 0.0)
    assert "open" == machine.state(0.0)


def test_failures_in_a_row_count_only_close_together_if_that_is_asked() -> None:
    machine = circuit(Breaker(Consecutive(3, within_seconds=10)))
    for now in (0.0, 6.0, 12.0, 18.0):
        fail(machine, now)
    assert "closed" == machine.state(18.0)

    fail(machine, 22.0)

    assert "open" == machine.state(22.0)


@pytest.mark.parametrize(
    "after", [Consecutive(5, within_seconds=60), Consecutive(8, within_seconds=60), Consecutive(3, within_seconds=60)]
)
@pytest.mark.parametrize("before", [Consecutive(5), Consecutive(5, within_seconds=1)])
def test_a_reload_in_the_middle_of_a_streak_asks_for_times_it_does_not_have(
    before: Consecutive, after: Consecutive
) -> None:
    """It waits until it has them; it once raised IndexError into the call."""
    machine = circuit(Breaker(before))
    for now in (0.0, 2.0, 4.0, 6.0):
        fail(machine, now)

    reload(machine, Breaker(after))
    failures = 0
    while machine.state(7.0) == "closed":
        fail(machine, 7.0)
        failures += 1

    assert 1 <= failures <= 8


def test_a_rate_over_calls_forgets_by_calls() -> None:
    machine = circuit(Breaker(Rate(0.5, window_calls=4, calls_min=4)))
    fail(machine, 0.0)
    for _ in range(4):
        call(machine, 1.0)
    fail(machine, 1e6)
    assert "closed" == machine.state(1e6)

    fail(machine, 2e6)

    assert "open" == machine.state(2e6)


# --- slow calls ------------------------------------------------------------------------------------------------------


def test_a_call_that_ends_in_time_is_not_slow() -> None:
    machine = circuit(Breaker(Slow(1.0, slow_seconds=5, calls_min=2)))

    for start, seconds in ((0.0, 4.9), (10.0, 4.9), (20.0, 5.0)):
        permit = machine.enter(Call(), start)
        machine.leave(permit, Call(), SUCCESS, start + seconds)

    counts = machine.tally.counts()
    assert (1, 3) == (counts["slow"], counts["slow_of"])


def test_slow_calls_open_it_when_they_become_slow_and_the_event_has_the_counts() -> None:
    machine = circuit(Breaker(Slow(0.5, slow_seconds=5, calls_min=4)))
    changes = changes_of(machine)
    for _ in range(2):
        call(machine, 0.0)
    for _ in range(2):
        machine.enter(Call(), 1.0)
    assert "closed" == machine.state(5.9)

    assert "open" == machine.state(6.0)

    assert (2, 4) == (changes[0].counts["slow"], changes[0].counts["slow_of"])
    assert "slow" in changes[0].reason
    assert "calls took longer than 5 s" == rejected(machine, 6.0).last_error_text


def test_a_neutral_end_takes_no_place_among_the_fast() -> None:
    machine = circuit(Breaker(Slow(0.5, slow_seconds=5, calls_min=4)))

    call(machine, 0.0, NEUTRAL)

    assert 0 == machine.tally.counts()["slow_of"]


def test_a_slow_probe_has_failed_although_it_succeeds_later() -> None:
    machine = circuit(Breaker(Consecutive(1) | Slow(0.5, slow_seconds=2), open_jitter=0, probe_successes=1))
    fail(machine, 0.0)
    probe = machine.enter(Call(), 5.0)

    assert ["half_open", "open"] == [machine.state(6.9), machine.state(7.0)]
    machine.leave(probe, Call(), SUCCESS, 7.5)

    assert ("open", 1) == (machine.state(7.5), machine.round)
    assert "slow" in rejected(machine, 8.0).last_error_text


def test_calls_that_began_before_an_outage_are_not_slow_after_it() -> None:
    """They belong to an epoch that is over."""
    machine = circuit(
        Breaker(Consecutive(1) | Slow(1.0, slow_seconds=20, calls_min=1), open_jitter=0, probe_successes=1)
    )
    old = machine.enter(Call(), 0.0)
    fail(machine, 0.0)
    call(machine, 5.0)
    assert "closed" == machine.state(5.0)

    assert "closed" == machine.state(25.0)
    machine.leave(old, Call(), FAILED, 26.0)

    assert "closed" == machine.state(26.0)


def test_a_reload_that_drops_or_brings_slow_judges_only_what_it_can() -> None:
    """A permit given without a start cannot become slow, and its verdict still counts."""
    machine = circuit(Breaker(Slow(1.0, slow_seconds=1, calls_min=1)))
    watched = machine.enter(Call(), 0.0)
    reload(machine, Breaker(Consecutive(2)))
    assert "closed" == machine.state(10.0)
    machine.leave(watched, Call(), FAILED, 10.0)

    unwatched = machine.enter(Call(), 10.0)
    reload(machine, Breaker(Consecutive(2) | Slow(1.0, slow_seconds=1, calls_min=1)))
    assert "closed" == machine.state(20.0)
    machine.leave(unwatched, Call(), FAILED, 20.0)

    assert "open" == machine.state(20.0)


# --- how long it is open ---------------------------------------------------------------------------------------------


def test_open_times_grow_up_to_the_maximum_and_are_forgotten_after_it() -> None:
    """Flapping keeps backing off; a quiet time as long as the maximum ends the story."""
    machine = opened(open_seconds_max=20, probe_successes=1)
    now, lengths = 0.0, []
    for _ in range(4):
        lengths.append(machine.retry_after(now))
        now += machine.retry_after(now)
        fail(machine, now)
    assert [5.0, 10.0, 20.0, 20.0] == lengths

    now += 20.0
    call(machine, now)
    fail(machine, now + 19.9)
    assert 20.0 == pytest.approx(machine.retry_after(now + 19.9))
    now += 19.9 + 20.0
    call(machine, now)
    fail(machine, now + 20.0)

    assert 5.0 == machine.retry_after(now + 20.0)


@pytest.mark.parametrize(("part", "expected"), [(0.0, 48.0), (0.5, 60.0), (1.0, 72.0)])
def test_jitter_spreads_also_the_longest_time(part: float, expected: float) -> None:
    """Cut at the maximum, half of a fleet would probe in the same instant."""
    machine = circuit(Breaker(Consecutive(1), open_seconds=60, open_seconds_max=60), random=Fixed(part))

    fail(machine, 0.0)

    assert expected == pytest.approx(machine.retry_after(0.0))


@pytest.mark.parametrize(("asked", "expected"), [(None, 5.0), (1.0, 5.0), (30.0, 30.0), (86_400.0, 60.0)])
def test_the_dependency_may_ask_for_longer_up_to_the_maximum(asked: float | None, expected: float) -> None:
    machine = circuit(Breaker(Consecutive(1), open_jitter=0))

    call(machine, 0.0, verdict_of(Kind.OVERLOADED, retry_after_seconds=asked))

    assert expected == machine.retry_after(0.0)


def test_a_probe_may_be_told_for_how_long_to_stay_away_too() -> None:
    machine = opened()

    call(machine, 5.0, verdict_of(Kind.OVERLOADED, retry_after_seconds=45.0))

    assert ["open", "half_open"] == [machine.state(49.9), machine.state(50.0)]


def test_a_time_that_grows_slowly_still_grows_to_the_maximum() -> None:
    machine = opened(open_factor=1.01)
    machine.round = 250

    fail(machine, 5.0)

    assert 60.0 == machine.retry_after(5.0)


def test_a_very_old_outage_has_finite_times() -> None:
    machine = opened(open_factor=10)
    machine.round = 10_000

    fail(machine, 5.0)

    assert 60.0 == machine.retry_after(5.0)


# --- rejection -------------------------------------------------------------------------------------------------------


def test_a_rejection_says_who_why_and_until_when() -> None:
    machine = opened()

    error = rejected(machine, 2.0)

    assert ("psp", "open", 3.0, "Away: refused") == (
        error.policy,
        error.state,
        error.retry_after_seconds,
        error.last_error_text,
    )
    assert "Away: refused" in error.reason
    assert error.__suppress_context__


def test_every_rejection_says_a_time_above_zero_whatever_the_state() -> None:
    """Zero would make a loop of whoever obeys it."""
    machine = opened()
    found = [rejected(machine, 4.9999999)]
    machine.enter(Call(), 5.0)
    found.append(rejected(machine, 5.0))
    machine.isolate("maintenance", 1, 6.0)
    found.append(rejected(machine, 6.9999999))
    ramping = opened(ramp_seconds=10, probe_successes=1)
    call(ramping, 5.0)
    call(ramping, 5.0)
    found.append(rejected(ramping, 5.0))

    assert ["open", "half_open", "isolated", "closed"] == [error.state for error in found]
    assert all(error.retry_after_seconds > 0 for error in found)
    assert all(error.retry_after_seconds <= 0.1 for error in found)
    assert circuit().retry_after(0.0) > 0
    assert 0 < opened().retry_after(4.9999999) <= 0.1


# --- half open -------------------------------------------------------------------------------------------------------


def test_a_rejection_names_the_error_of_the_last_probe() -> None:
    """What was wrong an hour ago may be something else by now."""
    machine = opened(probe_lease_seconds=2)
    call(machine, 5.0, verdict_of(Kind.TIMEOUT, reason="AttemptTimeout: 10 s"))
    assert "AttemptTimeout: 10 s" == rejected(machine, 6.0).last_error_text

    machine.enter(Call(), 15.0)

    assert "a probe hung" == rejected(machine, 17.0).last_error_text


@pytest.mark.parametrize("how", ["hung", "slow"])
def test_a_probe_that_failed_long_before_anybody_looks_costs_no_further_open_time(how: str) -> None:
    """The time since its end counts: else an hour's pause between two calls would be an hour and the open time."""
    machine = opened(probe_lease_seconds=2)
    if how == "slow":
        reload(machine, Breaker(Consecutive(1) | Slow(0.5, slow_seconds=2), open_jitter=0, open_seconds=5))
    machine.enter(Call(), 5.0)

    assert "a probe" in rejected(machine, 16.9).last_error_text  # failed at 7 s: open until 17 s, a round longer
    later = opened(probe_lease_seconds=2)
    later.enter(Call(), 5.0)
    assert later.enter(Call(), 3_600.0)
    assert ("half_open", 1) == (later.state(3_600.0), later.round)
    call(machine, 17.0)
    assert "half_open" == machine.state(17.0)


def test_as_many_probes_in_a_row_as_asked_close_it() -> None:
    """One success is a coin flip."""
    machine = opened(probe_successes=3)

    states = []
    for _ in range(3):
        call(machine, 5.0)
        states.append(machine.state(5.0))

    assert ["half_open", "half_open", "closed"] == states


def test_successes_before_a_failed_probe_do_not_count_afterwards() -> None:
    machine = opened(probe_successes=2)
    call(machine, 5.0)
    fail(machine, 5.0)

    call(machine, 15.0)
    assert "half_open" == machine.state(15.0)

    call(machine, 15.0)
    assert "closed" == machine.state(15.0)


def test_one_failing_probe_ends_all_of_its_round() -> None:
    machine = opened(probes_max=3, probe_successes=1)
    probes = [machine.enter(Call(), 5.0) for _ in range(3)]

    machine.leave(probes[0], Call(), FAILED, 6.0)
    for probe in probes[1:]:
        machine.leave(probe, Call(), SUCCESS, 6.0)
    assert ("open", 1) == (machine.state(6.0), machine.round)

    again = [machine.enter(Call(), 16.0) for _ in range(3)]
    assert 3 == len(set(again))
    rejected(machine, 16.0)


def test_a_permit_that_is_given_back_twice_counts_once() -> None:
    machine = opened(probe_successes=2)
    probe = machine.enter(Call(), 5.0)

    machine.leave(probe, Call(), SUCCESS, 5.0)
    machine.leave(probe, Call(), SUCCESS, 5.0)

    assert "half_open" == machine.state(5.0)
    call(machine, 5.0)
    assert "closed" == machine.state(5.0)


def test_the_window_begins_empty_after_an_outage() -> None:
    machine = circuit(Breaker(Rate(0.5, calls_min=4), open_jitter=0, probe_successes=1))
    fail(machine, 0.0, 4)
    call(machine, 5.0)

    fail(machine, 5.0, 3)
    assert "closed" == machine.state(5.0)

    fail(machine, 5.0)
    assert "open" == machine.state(5.0)


# --- ramp ------------------------------------------------------------------------------------------------------------


def test_after_closing_the_admitted_share_grows_by_count_not_by_chance() -> None:
    """A backend that has just come back dies under full load."""
    machine = opened(ramp_seconds=10, probe_successes=1)
    call(machine, 5.0)
    admitted, shares = [], []
    for now in (5.0, 10.0, 15.0):
        count = 0
        for _ in range(100):
            try:
                call(machine, now)
                count += 1
            except BreakerOpen:
                continue
        admitted.append(count)
        shares.append(machine.admitted_share(now))

    assert [20, 60, 100] == [pytest.approx(count, abs=1) for count in admitted]
    assert [0.2, 0.6, 1.0] == [pytest.approx(share) for share in shares]


def test_of_a_fifth_exactly_every_fifth_call_is_admitted_the_first_included() -> None:
    machine = opened(ramp_seconds=600, probe_successes=1)
    call(machine, 5.0)

    admitted = []
    for number in range(11):
        try:
            call(machine, 5.0)
            admitted.append(number)
        except BreakerOpen:
            continue

    assert [0, 5, 10] == admitted
    assert [1.0, 1.0] == [machine.admitted_share(605.0), machine.admitted_share(9_999.0)]


def test_the_first_call_after_closing_is_admitted_and_the_ramp_ends_with_its_time() -> None:
    machine = opened(ramp_seconds=10, probe_successes=1)
    call(machine, 5.0)
    assert 0 == machine.plain_epoch

    call(machine, 5.0)
    assert "closed" == machine.state(15.0)

    assert machine.epoch == machine.plain_epoch


def test_an_outage_in_the_ramp_opens_as_ever_and_ends_the_ramp() -> None:
    machine = opened(ramp_seconds=10, probe_successes=1)
    call(machine, 5.0)

    fail(machine, 6.0)

    assert ("open", 0.0) == (machine.state(6.0), machine.admitted_share(6.0))
