"""The breaker's machine: every row of its table of transitions, and a reference model of a page."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.policies import Breaker, Consecutive, Rate, Slow, events
from spoolproof.policies.call import Call
from spoolproof.policies.circuit import Circuit
from spoolproof.policies.verdict import SUCCESS, Kind, verdict_of

from .breakers import FAILED, MACHINE_EXAMPLES, MACHINE_SECONDS, NEUTRAL, call, circuit, fail, opened, reload


class Fixed:
    """Chance that always says the same."""

    def __init__(self, part: float) -> None:
        self.part = part

    def uniform(self, a: float, b: float) -> float:
        return a + self.part * (b - a)


def rejected(machine: Circuit, now: float) -> BreakerOpen:
    with pytest.raises(BreakerOpen) as caught:
        machine.enter(Call(), now)
    return caught.value


def changes_of(machine: Circuit) -> list[events.BreakerChanged]:
    kept: list[events.BreakerChanged] = []
    machine.watch(kept.append)
    return kept


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

    for seconds in (4.9, 5.0, 5.0):
        permit = machine.enter(Call(), 0.0)
        machine.leave(permit, Call(), SUCCESS, seconds)

    counts = machine.tally.counts()
    assert (2, 3) == (counts["slow"], counts["slow_of"])


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
    assert closed_retry_after() > 0


def closed_retry_after() -> float:
    return circuit().retry_after(0.0)


# --- half open -------------------------------------------------------------------------------------------------------


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


# --- isolation, reset, health checks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["", "   ", "x" * 201, None, 7])
def test_an_isolation_needs_a_reason_somebody_can_read(reason: Any) -> None:
    """At 3 a.m. the next person finds it."""
    machine = circuit()

    with pytest.raises(PolicyConfigError, match="reason="):
        machine.isolate(reason, 60, 0.0)

    assert "closed" == machine.state(0.0)


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan"), float("inf"), True, "60"])
def test_an_isolation_ends_within_a_day(seconds: Any) -> None:
    """A forgotten isolation is an outage."""
    with pytest.raises(PolicyConfigError, match="ttl_seconds="):
        circuit().isolate("maintenance", seconds, 0.0)


def test_an_isolation_rejects_with_its_reason_and_ends_at_its_time() -> None:
    machine = circuit(Breaker(isolate_seconds=600))
    machine.isolate("maintenance", None, 0.0)

    error = rejected(machine, 100.0)
    assert ("isolated", "maintenance", 500.0) == (error.state, error.reason, error.retry_after_seconds)

    assert ["isolated", "half_open"] == [machine.state(599.9), machine.state(600.0)]


def test_the_last_isolation_decides_when_to_ask_again() -> None:
    machine = circuit()
    machine.isolate("short", 10, 0.0)
    machine.isolate("long", 100, 0.0)

    assert 100.0 == machine.retry_after(0.0)
    assert ["isolated", "half_open"] == [machine.state(10.0), machine.state(100.0)]


def test_a_handle_that_is_released_late_does_nothing() -> None:
    machine = circuit(Breaker(probe_successes=1))
    handle = machine.isolate("maintenance", 10, 0.0)
    call(machine, 10.0)

    handle.release(11.0)

    assert "closed" == machine.state(11.0)


def test_an_isolation_interrupts_an_outage_and_what_is_in_flight_counts_for_nothing() -> None:
    machine = circuit(Breaker(Consecutive(1)))
    old = machine.enter(Call(), 0.0)

    machine.isolate("maintenance", 10, 0.0)
    machine.leave(old, Call(), FAILED, 1.0)

    assert ["isolated", "half_open"] == [machine.state(1.0), machine.state(10.0)]


def test_a_reset_closes_whatever_the_state_and_forgets_isolations_and_round() -> None:
    machine = opened()
    fail(machine, 5.0)
    machine.isolate("maintenance", 60, 6.0)

    machine.reset("checked by hand", 7.0)

    assert ("closed", 0) == (machine.state(7.0), machine.round)
    assert [] == machine.snapshot(7.0, 0.0)["isolations"]
    call(machine, 7.0)
    fail(machine, 7.0)
    assert 5.0 == machine.retry_after(7.0)


def test_a_reset_of_a_closed_breaker_forgets_its_window() -> None:
    machine = circuit(Breaker(Consecutive(3)))
    fail(machine, 0.0, 2)

    machine.reset("deployed", 0.0)
    fail(machine, 0.0, 2)

    assert "closed" == machine.state(0.0)


def test_a_passing_health_check_probes_at_once_and_only_when_open() -> None:
    """Recovery is not delayed by a long reset (the database of an order service is back in 5 s, not in 20)."""
    machine = opened(open_seconds=3600)
    machine.probe_now("ping", 1.0)
    assert "half_open" == machine.state(1.0)

    closed = circuit()
    closed.probe_now("ping", 1.0)
    isolated = circuit()
    isolated.isolate("maintenance", 60, 0.0)
    isolated.probe_now("ping", 1.0)

    assert ("closed", 1) == (closed.state(1.0), closed.epoch)
    assert "isolated" == isolated.state(1.0)


# --- modes -----------------------------------------------------------------------------------------------------------


def test_off_counts_nothing_and_begins_empty_when_it_is_turned_on() -> None:
    """Successes alone, counted while off, would hide the outage that begins when it is turned on."""
    machine = circuit(Breaker(Rate(0.5, calls_min=4), mode="off"))
    for verdict in [*[SUCCESS] * 50, *[FAILED] * 50]:
        call(machine, 0.0, verdict)
    assert ("closed", False) == (machine.state(0.0), machine.is_moving)

    reload(machine, Breaker(Rate(0.5, calls_min=4)))
    fail(machine, 0.0, 3)
    assert "closed" == machine.state(0.0)

    fail(machine, 0.0)
    assert "open" == machine.state(0.0)


def test_turning_it_off_admits_everybody_and_turning_it_on_remembers_the_outage() -> None:
    machine = opened(open_seconds=60)
    reload(machine, Breaker(Consecutive(1), open_seconds=60, open_jitter=0, mode="off"))
    call(machine, 1.0)

    reload(machine, Breaker(Consecutive(1), open_seconds=60, open_jitter=0))

    assert 58.0 == rejected(machine, 2.0).retry_after_seconds


def test_observe_admits_all_while_open_and_judges_the_first_as_probes() -> None:
    machine = circuit(Breaker(Consecutive(1), open_jitter=0, probe_successes=2, mode="observe"))
    fail(machine, 0.0)
    fail(machine, 1.0, 5)
    assert ("open", 0, True) == (machine.state(1.0), machine.round, machine.would_admit(1.0))

    probe = machine.enter(Call(), 5.0)
    other = machine.enter(Call(), 5.0)
    machine.leave(other, Call(), FAILED, 5.0)
    assert "half_open" == machine.state(5.0)

    machine.leave(probe, Call(), SUCCESS, 5.0)
    call(machine, 5.0)
    assert "closed" == machine.state(5.0)


def test_observe_rejects_nothing_in_isolation_and_ramp_either() -> None:
    machine = circuit(Breaker(Consecutive(1), open_jitter=0, probe_successes=1, ramp_seconds=10, mode="observe"))
    fail(machine, 0.0)
    for _ in range(20):
        call(machine, 5.0)
    machine.isolate("maintenance", 60, 6.0)

    for _ in range(20):
        call(machine, 7.0)

    assert "isolated" == machine.state(7.0)


# --- telling ---------------------------------------------------------------------------------------------------------


def test_each_transition_is_told_once_with_its_reason_and_counts(told: list[events.Event]) -> None:
    machine = circuit(Breaker(Rate(0.5, calls_min=4), open_jitter=0, probe_successes=1))
    watched = changes_of(machine)
    call(machine, 0.0)
    fail(machine, 0.0, 3)
    call(machine, 5.0)

    assert [("closed", "open"), ("open", "half_open"), ("half_open", "closed")] == [
        (change.old, change.new) for change in watched
    ]
    assert "too many failures: Away: refused" == watched[0].reason
    assert {"consecutive": 3, "failures": 3, "failures_of": 4, "round": 0} == watched[0].counts
    assert watched == told


def test_counts_are_of_the_moment_they_are_told() -> None:
    """An operator who reads nine failures acts on them; they were a quarter of an hour ago."""
    machine = circuit(Breaker(Rate(0.5, window_seconds=60, calls_min=20)))
    changes = changes_of(machine)
    fail(machine, 5.0, 9)

    machine.isolate("maintenance", 60, 1_000.0)

    assert (0, 0) == (changes[0].counts["failures"], changes[0].counts["failures_of"])


def test_watchers_are_called_without_the_lock_and_may_use_the_breaker() -> None:
    """A callback that asks for the state, as every one does, must not hang the call."""
    machine = circuit(Breaker(Consecutive(1)))
    seen: list[str] = []

    def look(change: events.BreakerChanged) -> None:
        seen.append(machine.state(0.0))
        if change.new == "open":
            machine.reset("from a watcher", 0.0)

    machine.watch(look)
    fail(machine, 0.0)

    assert ["open", "closed"] == seen


def test_a_watcher_that_raises_costs_the_call_nothing_and_the_others_hear() -> None:
    """It stands between a call and its permit: a closed event loop in one callback must not fail payments."""
    machine = opened()
    before = events.listener_errors()

    def broken(_: events.BreakerChanged) -> None:
        raise RuntimeError("Event loop is closed")

    machine.watch(broken)
    changes = changes_of(machine)
    probe = machine.enter(Call(), 5.0)
    machine.leave(probe, Call(), FAILED, 5.0)

    assert ["half_open", "open"] == [change.new for change in changes]
    assert before + 2 == events.listener_errors()


def test_a_watcher_that_has_gone_hears_nothing_and_its_twin_still_does() -> None:
    machine = circuit(Breaker(Consecutive(1)))
    kept: list[events.BreakerChanged] = []
    unwatch, _ = machine.watch(kept.append), machine.watch(kept.append)

    unwatch()
    unwatch()
    fail(machine, 0.0)

    assert 1 == len(kept)


# --- time and threads ------------------------------------------------------------------------------------------------


def test_a_reading_from_the_past_neither_opens_nor_closes() -> None:
    machine = opened()
    assert "half_open" == machine.state(5.0)

    assert "half_open" == machine.state(0.0)
    machine.isolate("maintenance", 10, 5.0)
    assert 10.0 == machine.retry_after(0.0)


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [(Breaker(Rate()), True), (Breaker(Slow(0.5, slow_seconds=1)), False), (Breaker(mode="off"), True)],
)
def test_a_plainly_closed_breaker_admits_without_its_lock(breaker: Breaker, expected: bool) -> None:
    machine = circuit(breaker)

    assert expected is (machine.plain_epoch != 0)
    with machine.lock if expected else threading.Lock():
        assert machine.enter(Call(), 0.0)


def test_a_breaker_is_small() -> None:
    """There may be a thousand keys, and each has one."""
    import tracemalloc

    circuit()
    tracemalloc.start()
    kept = [circuit() for _ in range(50)]
    settings_seconds = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()

    assert settings_seconds < 4_096  # with settings of its own, which keys share


async def test_waiting_at_a_breaker_is_being_admitted_or_rejected_at_once() -> None:
    """It has no queue."""
    machine = opened()
    waiting = Call()
    waiting.now = 1.0
    with pytest.raises(BreakerOpen):
        await machine.wait(waiting)
    with pytest.raises(BreakerOpen):
        machine.wait_blocking(waiting)

    waiting.now = 5.0
    probe = await machine.wait(waiting)
    machine.succeed(probe, 5.0)
    assert machine.wait_blocking(waiting)


# --- against a model -------------------------------------------------------------------------------------------------


class BreakerModel(RuleBasedStateMachine):
    """Against a reference that keeps everything in lists: three in a row or half of four in ten buckets of a second."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = circuit(
            Breaker(
                Rate(0.5, window_seconds=10, calls_min=4) | Consecutive(3),
                open_seconds=5,
                open_jitter=0,
                open_seconds_max=20,
                probes_max=2,
                probe_successes=2,
                probe_lease_seconds=7,
            )
        )
        self.changes = changes_of(self.machine)
        self.now = 1.0
        self.state = "closed"
        self.round, self.until, self.closed_at, self.good, self.changed = 0, 0.0, 0.0, 0, 0
        self.failed: list[tuple[float, bool]] = []
        self.leases: dict[int, float] = {}
        self.isolations: dict[Any, float] = {}
        self.permits: list[tuple[object, int, int]] = []
        self.entered = self.left = 0

    def _to(self, state: str) -> None:
        self.state, self.good, self.failed, self.leases = state, 0, [], {}
        self.changed += 1

    def _open(self, round_: int) -> None:
        self.round = round_
        self.until = self.now + min(20.0, 5.0 * 2.0**round_)
        self._to("open")

    def _catch_up(self) -> None:
        if self.state == "isolated":
            self.isolations = {one: until for one, until in self.isolations.items() if until > self.now}
            if not self.isolations:
                self._to("half_open")
        elif self.state == "open" and self.now >= self.until:
            self._to("half_open")
        elif self.state == "half_open" and any(until <= self.now for until in self.leases.values()):
            self._open(self.round + 1)

    def _is_too_much(self) -> bool:
        young = [failed for at, failed in self.failed if int(self.now) - int(at) < 10]
        last = [failed for _, failed in self.failed[-3:]]
        return last == [True] * 3 or (len(young) >= 4 and sum(young) >= len(young) / 2)

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.5, 1.0, 5.0, 7.0, 25.0]))
    def enter(self, seconds: float) -> None:
        self.now += seconds
        self._catch_up()
        expected = self.state == "closed" or (self.state == "half_open" and len(self.leases) < 2)
        assert expected == self.machine.would_admit(self.now)
        try:
            permit = self.machine.enter(Call(), self.now)
        except BreakerOpen as error:
            self._refused(expected, error)
            return
        assert expected
        self.entered += 1
        if self.state == "half_open":
            self.leases[self.entered] = self.now + 7
        self.permits.append((permit, self.changed, self.entered))

    def _refused(self, expected: bool, error: BreakerOpen) -> None:
        assert not expected
        assert self.state == error.state
        assert error.retry_after_seconds > 0

    @precondition(lambda self: self.permits)
    @rule(which=st.integers(0, 9), verdict=st.sampled_from([SUCCESS, FAILED, FAILED, NEUTRAL]))
    def leave(self, which: int, verdict: Any) -> None:
        permit, changed, number = self.permits.pop(which % len(self.permits))
        self._catch_up()
        self.machine.leave(permit, Call(), verdict, self.now)
        self.left += verdict is not NEUTRAL
        if changed != self.changed:
            return
        is_probe = self.leases.pop(number, None) is not None
        if verdict is NEUTRAL:
            return
        if not is_probe:
            self.failed.append((self.now, verdict is FAILED))
            if verdict is FAILED and self._is_too_much():
                self._open(0 if self.now - self.closed_at >= 20.0 else self.round)
        elif verdict is FAILED:
            self._open(self.round + 1)
        else:
            self.good += 1
            if self.good == 2:
                self.closed_at = self.now
                self._to("closed")

    @rule(ttl_seconds=st.sampled_from([1, 10]))
    def isolate(self, ttl_seconds: int) -> None:
        self._catch_up()
        self.isolations[self.machine.isolate("by hand", ttl_seconds, self.now)] = self.now + ttl_seconds
        self._to("isolated")

    @precondition(lambda self: self.isolations)
    @rule(which=st.integers(0, 9))
    def release(self, which: int) -> None:
        handle = list(self.isolations)[which % len(self.isolations)]
        self._catch_up()
        handle.release(self.now)
        if self.isolations.pop(handle, None) is not None:
            self._catch_up()

    @rule()
    def probe_now(self) -> None:
        self._catch_up()
        self.machine.probe_now("ping", self.now)
        if self.state == "open":
            self._to("half_open")

    @rule()
    def reset(self) -> None:
        self._catch_up()
        self.machine.reset("by hand", self.now)
        self.round, self.closed_at, self.isolations = 0, self.now, {}
        self._to("closed")

    @rule()
    def restart(self) -> None:
        """What is kept of it goes on in another process."""
        self._catch_up()
        kept = {"version": 1, "saved_at": 0.0, **self.machine.snapshot(self.now, 0.0)}
        self.machine.restore(kept, self.now, 0.0)
        if self.state == "half_open":
            self.until = self.now
        if self.state != "closed":
            self._to("isolated" if self.state == "isolated" else "open")
        self.isolations = dict(zip(self.machine._isolations, self.isolations.values(), strict=True))
        self._catch_up()

    @invariant()
    def it_is_what_the_reference_is(self) -> None:
        self._catch_up()
        assert self.state == self.machine.state(self.now)
        assert self.round == self.machine.round
        assert self.left == self.machine.successes_total + self.machine.failures_total
        assert len(self.leases) == len(self.machine._probes)
        assert self.changed == self.machine.epoch - 1 == len(self.changes)
        assert min(self.machine.tally.counts().values()) >= 0


TestBreaker = MACHINE_SECONDS(BreakerModel.TestCase)
TestBreaker.settings = settings(
    max_examples=MACHINE_EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
