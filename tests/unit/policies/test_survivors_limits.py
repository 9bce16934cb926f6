"""What once survived `tests/mutation.py` of the limits: adaptive, budget, bulkhead, line, rate limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spoolproof.errors import BulkheadFull, DeadlineExceeded, PolicyConfigError, RateLimited
from spoolproof.policies import Adaptive, RateLimit
from spoolproof.policies.judging.verdict import SUCCESS
from spoolproof.policies.machines.adaptive import DISCARD_SECONDS, PROBE_EVERY, SAMPLES_MIN, AdaptiveLimit
from spoolproof.policies.machines.budget import Budget
from spoolproof.policies.machines.line import Standing, Step
from spoolproof.policies.machines.slots import Slots
from spoolproof.testing.clock import ManualClock

from .test_adaptive import window
from .test_budget import spent
from .test_bulkhead import Stub, call_of, slots_of
from .test_rate_limit import give_back, tokens_of
from .waiting import wait_blocking

# --- adaptive --------------------------------------------------------------------------------------------------------


def test_declarations_keep_all_they_were_given() -> None:
    assert {"limit_initial": 5, "limit_min": 2, "limit_max": 9} == Adaptive(
        limit_initial=5, limit_min=2, limit_max=9
    ).given
    assert {"rate": 5, "queue_max": 3} == RateLimit(5, queue_max=3).given


def test_bounds_out_of_order_are_all_named() -> None:
    """Which of them is the mistake, only their owner knows."""
    with pytest.raises(PolicyConfigError) as raised:
        Adaptive(limit_initial=10, limit_min=20)

    expected = "limit_min=20, limit_initial=10, limit_max=None: in this order, none above the next"
    assert (expected,) == raised.value.faults


def test_a_limit_stays_between_1_and_200_unless_told_otherwise() -> None:
    """Also after a reload that tells it no more."""
    made = [AdaptiveLimit("psp", None, limit_initial=number).limit for number in (1, 500)]

    high = AdaptiveLimit("psp", None, limit_initial=500, limit_max=500)
    low = AdaptiveLimit("psp", None, limit_initial=3, limit_min=3)
    high.configure()
    low.configure(limit_max=1)

    assert [1, 200] == made
    assert [1, 200] == [low.limit, high.limit]


@pytest.mark.parametrize(("in_flight", "expected"), [(49, 100), (50, 102)])
def test_half_of_a_limit_in_use_is_enough_to_move_it(in_flight: int, expected: int) -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=100)

    window(limit, 0.0, in_flight=in_flight)

    assert expected == limit.limit


def test_each_window_takes_fifty_signals_of_its_own() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=100)
    now = window(limit, 0.0, in_flight=1)

    limits = []
    for _ in range(SAMPLES_MIN):
        limit.sample(0.1, 200, now + 2.0)
        limits.append(limit.limit)

    assert [100] * (SAMPLES_MIN - 1) + [102] == limits


def test_of_more_samples_than_fit_the_latest_count() -> None:
    """A thousand of a fast server; 901 of them make its ninetieth percentile."""
    limit = AdaptiveLimit("psp", None)
    for _ in range(1_000):
        limit.sample(0.2, 20, 0.0)

    for number in range(901):
        limit.sample(0.1, 20, 1.0 if number == 900 else 0.5)

    assert [0.1] == list(limit._bases)


def test_a_call_that_began_with_the_probe_is_one_of_its_own() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=100)
    now = 0.0
    for _ in range(PROBE_EVERY):
        now = window(limit, now, 0.5, in_flight=1)
    assert 50 == limit.limit

    for _ in range(SAMPLES_MIN):
        limit.sample(1.0, 1, now + 1.0)

    assert 100 == limit.limit


def test_after_a_probe_without_traffic_the_next_one_is_as_far_off_as_ever() -> None:
    """Half of the limit is a price that is paid in one window of sixty."""
    limit = AdaptiveLimit("psp", None, limit_initial=100)
    now = 0.0
    for _ in range(PROBE_EVERY):
        now = window(limit, now, 0.5, in_flight=1)
    now += DISCARD_SECONDS
    limit.sample(0.5, 1, now)

    limits = []
    for _ in range(PROBE_EVERY):
        now = window(limit, now, 0.5, in_flight=1)
        limits.append(limit.limit)

    assert [100] * 58 + [50, 100] == limits


def test_a_reload_brings_the_new_bounds_to_the_slots_at_once() -> None:
    slots = Slots("psp", None, running_max=32, limit=AdaptiveLimit("psp", None, limit_initial=50))
    before = slots.limit

    slots.configure(running_max=32, limits={"limit_initial": 50, "limit_min": 1, "limit_max": 10})
    lowered = slots.limit
    slots.configure(running_max=32)

    assert (50, 10, 10) == (before, lowered, slots.limit)


# --- budget ----------------------------------------------------------------------------------------------------------


def test_a_fifth_of_the_calls_and_one_a_second_may_be_retried_unless_told_otherwise() -> None:
    budget = Budget()
    for _ in range(100):
        budget.note_call(0.0)

    assert 20 + 10 == spent(budget, 0.0)


def test_what_happens_on_the_second_belongs_to_the_one_that_begins() -> None:
    calls, retries = Budget(1.0, 0.0), Budget(0.0, 0.1)

    calls.note_call(1.0)

    assert [1, 0] == [calls.available(now) for now in (10.9, 11.0)]
    assert [True, False, True] == [retries.spend(now) for now in (1.0, 10.9, 11.0)]


def test_a_reading_of_the_second_before_counts_as_the_last() -> None:
    """Threads read the clock before they take the lock."""
    budget = Budget(1.0, 0.0)
    budget.note_call(50.0)
    budget.note_call(49.5)

    assert [2, 0] == [budget.available(now) for now in (59.9, 60.0)]


# --- bulkhead and line -----------------------------------------------------------------------------------------------


def test_refusals_name_their_policy() -> None:
    slots, tokens = slots_of(1, queue_max=0), tokens_of(1, queue_max=0)
    slots.enter(call_of(), 0.0)
    tokens.enter(call_of(), 0.0)

    with pytest.raises(BulkheadFull, match="policy 'psp'") as full:
        slots.enter(call_of(), 0.0)
    with pytest.raises(RateLimited, match="policy 'psp'") as limited:
        tokens.enter(call_of(), 0.0)

    assert ["psp", "psp"] == [full.value.policy, limited.value.policy]


def test_a_deadline_that_ends_a_wait_names_its_policy() -> None:
    slots = slots_of(1)
    slots.enter(call_of(), 0.0)
    call = call_of(deadline_at=0.5)
    waiter = Stub(call)
    slots._join(waiter, call, 0.0)

    with pytest.raises(DeadlineExceeded) as raised:
        slots._look(waiter, 0.5)

    assert ("psp", False) == (raised.value.policy, raised.value.has_started)


@pytest.mark.parametrize("is_reloaded", [False, True])
async def test_who_waits_for_a_slot_is_refused_after_a_second_unless_told_otherwise(
    clock: ManualClock, is_reloaded: bool
) -> None:
    slots = slots_of(1, wait_seconds_max=60) if is_reloaded else slots_of(1)
    if is_reloaded:
        slots.configure(running_max=1)
    slots.enter(call_of(clock), 0.0)
    waiting = asyncio.ensure_future(slots.wait(call_of(clock)))

    await clock.advance(0.9)
    early = waiting.done()
    await clock.advance(0.1)

    assert not early
    assert isinstance(waiting.exception(), BulkheadFull)


def test_a_queue_grows_with_the_limit_unless_told_otherwise() -> None:
    """Who raises running_max in a settings file has not thought of the queue."""
    slots = slots_of(1)
    slots.configure(running_max=2)
    call = call_of()

    admitted = [slots.enter(call, 0.0) for _ in range(2)]
    waiting = [slots._join(Stub(call), call, 0.0) for _ in range(4)]

    assert ([True] * 2, [False] * 4) == (admitted, waiting)
    with pytest.raises(BulkheadFull):
        slots.enter(call, 0.0)


def test_who_comes_to_wait_and_finds_a_slot_needs_no_place_in_the_queue() -> None:
    """It became free in between, and the queue may be full, or have none."""
    slots = slots_of(1, queue_max=0)

    assert wait_blocking(slots, call_of())
    assert 1 == slots.running


# --- rate limit ------------------------------------------------------------------------------------------------------


def test_a_call_in_the_middle_of_a_step_is_refused_by_its_own_cost() -> None:
    """A finaliser that the collector runs on the thread that holds the lock."""
    tokens = tokens_of(1, burst=5)
    tokens.enter(call_of(cost=5), 0.0)

    with Step(tokens, 0.0), pytest.raises(RateLimited) as raised:
        tokens.enter(call_of(cost=3), 0.0)

    assert 3.0 == raised.value.retry_after_seconds


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_who_would_wait_for_tokens_longer_than_a_second_is_refused_unless_told_otherwise(is_reloaded: bool) -> None:
    tokens = tokens_of(1, burst=2, wait_seconds_max=60) if is_reloaded else tokens_of(1, burst=2)
    if is_reloaded:
        tokens.configure(rate=1, burst=2)
    tokens.enter(call_of(cost=2), 0.0)

    assert tokens.enter(call_of(cost=1), 0.0) is None
    with pytest.raises(RateLimited) as raised:
        tokens.enter(call_of(cost=1.5), 0.0)

    assert 1.5 == raised.value.retry_after_seconds


def test_a_refusal_says_at_least_the_time_of_one_token() -> None:
    """A whole queue would come back in the same instant, for the one token that is nearly there."""
    tokens = tokens_of(1, queue_max=0)
    tokens.enter(call_of(), 0.0)

    with pytest.raises(RateLimited) as raised:
        tokens.enter(call_of(), 0.9)

    assert 1.0 == raised.value.retry_after_seconds


def test_a_cost_above_the_burst_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="cost=") as raised:
        tokens_of(10, burst=5).enter(call_of(cost=5.5), 0.0)

    assert "policy 'psp': cost=5.5 is above burst=5 and could never be granted; raise burst or split the call" == str(
        raised.value
    )


def test_tokens_that_come_back_are_granted_with_those_that_have_come_since() -> None:
    tokens = tokens_of(1, burst=2, wait_seconds_max=60)
    first, _ = (tokens.enter(call_of(), 0.0) for _ in range(2))
    waiter = Stub(call_of(cost=2), 60.0)
    tokens._join(waiter, call_of(cost=2), 0.0)

    give_back(tokens, first, now=1.0)

    assert Standing.GRANTED is waiter.standing


def test_a_reload_changes_nothing_of_what_has_run_over() -> None:
    """What comes back is the same number of tokens at any rate: of these five the bucket had refilled two."""
    tokens = tokens_of(1, burst=10)
    permit = tokens.enter(call_of(cost=5), 0.0)
    tokens.enter(call_of(), 2.0)

    tokens.configure(rate=2, burst=10)
    give_back(tokens, permit, 5, 2.0)

    assert 9 == tokens.available(2.0)


def test_an_empty_bucket_takes_back_what_it_gave_after_a_reload_that_changes_nothing() -> None:
    tokens = tokens_of(1, burst=2)
    permit = tokens.enter(call_of(cost=2), 5.0)

    tokens.configure(rate=1, burst=2)
    give_back(tokens, permit, 2, 5.0)

    assert 2 == tokens.available(5.0)


def test_a_token_taken_after_a_lowered_burst_comes_back() -> None:
    """Only those of the larger bucket do not."""
    tokens = tokens_of(1, burst=1_000)
    tokens.enter(call_of(cost=1_000), 5.0)
    tokens.configure(rate=1, burst=10)

    give_back(tokens, tokens.enter(call_of(), 6.0), now=6.0)

    assert 1 == tokens.available(6.0)


def test_tokens_that_came_back_once_do_not_come_back_with_the_next() -> None:
    """Of four and four, taken before a call that found three missing: without either, the bucket had been full."""
    tokens = tokens_of(1, burst=20)
    permits = [tokens.enter(call_of(cost=cost), 0.0) for cost in (1, 4, 4)]
    tokens.enter(call_of(), 6.0)

    found = []
    for permit in permits[:0:-1]:
        give_back(tokens, permit, 4, 6.0)
        found.append(tokens.available(6.0))

    assert [19, 19] == found


def test_a_queue_that_is_empty_again_holds_nobody_up() -> None:
    tokens = tokens_of(1)
    tokens.enter(call_of(), 0.0)
    waiter = Stub(call_of())
    tokens._join(waiter, call_of(), 0.0)
    tokens._abandon(waiter)

    assert tokens.enter(call_of(), 0.0) is None


def test_one_step_passes_over_all_that_are_gone() -> None:
    """Three closed event loops; the next step may be an hour away."""
    tokens = tokens_of(1, wait_seconds_max=60)
    tokens.enter(call_of(), 0.0)
    waiters = [Stub(call_of(), 60.0) for _ in range(4)]
    for waiter in waiters:
        tokens._join(waiter, call_of(), 0.0)
    for waiter in waiters[:3]:
        waiter.is_dead = True

    tokens._give_back(lambda: None, 1.0)

    assert [Standing.OVER] * 3 + [Standing.GRANTED] == [waiter.standing for waiter in waiters]


def test_what_comes_back_first_does_not_hide_that_the_rest_has_run_over() -> None:
    """Of the ten tokens of the third call, seven had come back before the fourth, which remains."""
    tokens = tokens_of(1, burst=20)
    permits = [tokens.enter(call_of(cost=cost), 0.0) for cost in (1, 1, 10)]
    tokens.enter(call_of(), 9.0)

    for _ in range(2):
        give_back(tokens, tokens.enter(call_of(), 9.0), now=9.0)
    give_back(tokens, permits[2], 10, 9.0)

    assert 19 == tokens.available(9.0)


@pytest.mark.parametrize(
    ("grants", "number", "cost", "expected"),
    [
        (33, 2, 4, 4),  # the last that is known for sure
        (34, 2, 4, 1),  # the moments of two grants are one, at the fuller
        (34, 3, 10, 9),  # and the others are as they were
    ],
)
def test_a_burst_of_more_grants_than_are_kept_costs_tokens_and_never_adds_any(
    grants: int, number: int, cost: float, expected: float
) -> None:
    tokens = tokens_of(1, burst=100)
    permits = [tokens.enter(call_of(cost=one), 0.0) for one in (1, 4, 10)]
    permits += [tokens.enter(call_of(), 6.0) for _ in range(grants - len(permits))]
    before = tokens.available(6.0)

    give_back(tokens, permits[number - 1], cost, 6.0)

    assert before + expected == tokens.available(6.0)


def test_one_whose_turn_is_late_looks_again_after_as_long_as_its_tokens_take() -> None:
    tokens = tokens_of(2, burst=4, wait_seconds_max=60)
    tokens.enter(call_of(cost=4), 0.0)
    waiters: list[Any] = [Stub(call_of(cost=cost), 60.0) for cost in (4, 3)]
    for waiter in waiters:
        tokens._join(waiter, call_of(cost=waiter.cost), 0.0)
    assert [2.0, 3.5] == [waiter.wakes_at for waiter in waiters]
    assert tokens._take(4, 3.5)

    assert not tokens._look(waiters[1], 3.5)

    assert 5.0 == waiters[1].wakes_at


def test_a_slot_that_came_free_on_the_way_to_the_queue_is_one_of_several() -> None:
    slots = slots_of(2)
    for _ in range(2):
        slots.enter(call_of(), 0.0)
    late = call_of()
    assert slots.enter(late, 0.0) is None
    slots.leave(True, call_of(), SUCCESS, 0.0)

    assert slots._join(Stub(late), late, 0.0)

    assert 2 == slots.running
