"""The retry budget: a share of the calls of the last ten seconds, and a floor. Time is passed in."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spoolproof.policies.machines.budget import BUCKETS, Budget

from ..doses import MACHINE_EXAMPLES, MACHINE_SECONDS, examples


def spent(budget: Budget, now: float, times: int = 1000) -> int:
    """How many of so many retries the budget allows."""
    return sum(budget.spend(now) for _ in range(times))


def test_small_services_may_retry_without_a_history() -> None:
    """The floor is one retry a second over ten seconds."""
    assert 10 == spent(Budget(), 0.0)


@pytest.mark.parametrize(("ratio", "calls", "retries"), [(0.2, 100, 20), (0.29, 100, 29), (1.0, 7, 7), (0.0, 50, 0)])
def test_retries_are_a_share_of_the_calls(ratio: float, calls: int, retries: int) -> None:
    """0.29 × 100 is a little less than 29 in floats; a retry must not be lost to that."""
    budget = Budget(ratio, 0.0)
    for _ in range(calls):
        budget.note_call(3.0)

    assert retries == spent(budget, 3.5)


def test_what_was_not_spent_is_not_saved_for_later() -> None:
    """An hour of calm must not pay for an hour of retries."""
    budget = Budget(1.0, 0.0)
    for _ in range(50):
        budget.note_call(0.0)

    assert [50, 50, 0] == [budget.available(now) for now in (0.0, 9.9, 10.0)]


def test_spent_retries_come_back_after_ten_seconds() -> None:
    budget = Budget(0.0, 1.0)
    spent(budget, 100.9)

    assert [0, 10] == [budget.available(now) for now in (109.9, 110.0)]


def test_a_reading_before_the_last_counts_as_the_last() -> None:
    budget = Budget(1.0, 0.0)
    budget.note_call(50.0)
    budget.note_call(20.0)

    assert 2 == budget.available(50.0)


def test_new_bounds_keep_what_was_counted() -> None:
    budget = Budget(0.0, 1.0)
    assert 4 == spent(budget, 0.0, times=4)

    budget.configure(budget_ratio=0.0, budget_per_second_min=0.5)

    assert 1 == budget.available(0.0)


def test_threads_together_never_spend_more() -> None:
    budget = Budget(0.0, 5.0)
    counts: list[int] = []

    threads = [threading.Thread(target=lambda: counts.append(spent(budget, 1.0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 50 == sum(counts)


@MACHINE_SECONDS
@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.4), st.booleans()), max_size=300),
    st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_q17_no_ten_seconds_hold_more_than_the_share_and_one_bucket(
    steps: list[tuple[float, bool]], ratio: float, floor: float
) -> None:
    """Whatever the traffic, in any ten seconds, wherever they begin: retries ≤ ratio × calls + floor + one bucket."""
    budget, now = Budget(ratio, floor), 0.0
    calls: list[float] = []
    retries: list[float] = []
    for pause, is_failing in steps:
        now += pause
        budget.note_call(now)
        calls.append(now)
        if is_failing and budget.spend(now):
            retries.append(now)

    for end in retries:
        recent = sum(end - 10 < at <= end for at in retries)
        bucket = sum(int(end) - 10 <= int(at) <= int(end) - 10 for at in retries)
        paid_by = sum(int(end) - 10 < int(at) <= int(end) for at in calls)
        assert recent <= ratio * paid_by + 10 * floor + bucket + 1e-6


def test_q17_a_hundred_calls_a_second_that_all_fail() -> None:
    """60 s of it, each failure wanting two retries, three keys sharing the one budget."""
    budget = Budget(0.2, 1.0)
    retries: list[float] = []
    for number in range(6000):
        now = number / 100
        budget.note_call(now)
        retries += [now for _ in range(2) if budget.spend(now)]

    for start in range(50):
        scheduled = sum(start <= at < start + 10 for at in retries)
        assert scheduled <= 0.2 * 1000 + 10 + 21


class BudgetMachine(RuleBasedStateMachine):
    """Against the list of everything, counted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.seen = 0.0
        self.ratio, self.floor = 0.2, 1.0
        self.budget = Budget(self.ratio, self.floor)
        self.calls: list[int] = []
        self.retries: list[int] = []

    def left(self) -> float:
        since = int(self.now) - BUCKETS
        calls, retries = (sum(at > since for at in kept) for kept in (self.calls, self.retries))
        return self.ratio * calls + BUCKETS * self.floor - retries

    @rule(count=st.integers(1, 20))
    def call(self, count: int) -> None:
        for _ in range(count):
            self.budget.note_call(self.now)
        self.calls += [int(self.now)] * count

    @rule(count=st.integers(1, 5))
    def retry(self, count: int) -> None:
        for _ in range(count):
            allowed = self.left() >= 1 - 1e-9
            assert allowed == self.budget.spend(self.now)
            self.retries += [int(self.now)] * allowed

    @rule(seconds=st.one_of(st.floats(0.01, 3), st.sampled_from([9.0, 10.0, 11.0, 1e6])))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(ratio=st.sampled_from([0.0, 0.2, 1.0]), floor=st.sampled_from([0.0, 0.1, 1.0]))
    def configure(self, ratio: float, floor: float) -> None:
        self.ratio, self.floor = ratio, floor
        self.budget.configure(budget_ratio=ratio, budget_per_second_min=floor)

    @invariant()
    def both_agree(self) -> None:
        assert pytest.approx(max(0.0, self.left()), abs=1e-9) == self.budget.available(self.now)


TestBudgetMachine = MACHINE_SECONDS(BudgetMachine.TestCase)
TestBudgetMachine.settings = settings(
    max_examples=MACHINE_EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
