"""Counting by time and by number, against the list of everything that was counted."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spoolproof.policies.machines.window import CountWindow, TimeWindow, is_reached, window_of
from spoolproof.policies.parts.ranges import Settings

from ..doses import MACHINE_EXAMPLES, MACHINE_SECONDS


def counted(window: TimeWindow | CountWindow) -> tuple[int, int]:
    return window.failures, window.total


# --- by time ---------------------------------------------------------------------------------------------------------


def test_a_verdict_counts_for_nine_tenths_of_the_window_and_never_after_it() -> None:
    """The two sides of what ten buckets can promise."""
    early, late = TimeWindow(10.0), TimeWindow(10.0)
    early.add(True, 100.0)  # at the start of a bucket it stays longest
    late.add(True, 100.999)  # at the end, shortest

    early.expire(109.999)
    late.expire(109.999)
    assert [(1, 1), (1, 1)] == [counted(early), counted(late)]

    early.expire(110.0)
    late.expire(110.0)
    assert [(0, 0), (0, 0)] == [counted(early), counted(late)]


def test_buckets_leave_one_by_one() -> None:
    window = TimeWindow(10.0)
    for second in range(10):
        window.add(second % 2 == 0, float(second))

    left = []
    for second in range(9, 20):
        window.expire(float(second))
        left.append(counted(window))

    assert [(5, 10), (4, 9), (4, 8), (3, 7), (3, 6), (2, 5), (2, 4), (1, 3), (1, 2), (0, 1), (0, 0)] == left


def test_it_says_until_when_the_present_bucket_lasts() -> None:
    """Before that, counting is one comparison and a sum; callers in a hurry do it themselves."""
    window = TimeWindow(10.0)
    assert 1.0 == window.ends

    window.add(False, 100.5)

    assert 101.0 == window.ends


def test_a_reading_from_the_past_means_that_no_time_has_passed() -> None:
    """Threads read the clock before they take the lock, so readings arrive out of order."""
    window = TimeWindow(10.0)
    window.add(True, 50.0)

    window.expire(20.0)
    window.add(False, 30.0)

    assert (1, 2) == counted(window)
    window.expire(60.0)
    assert (0, 0) == counted(window)


def test_a_cleared_window_counts_anew() -> None:
    window = TimeWindow(10.0)
    window.add(True, 5.0)

    window.clear()
    assert (0, 0) == counted(window)

    window.add(True, 6.0)
    window.expire(15.0)
    assert (1, 1) == counted(window)


def test_the_same_length_keeps_the_window_itself() -> None:
    """A reload that changes something else must not blur what was counted."""
    window = TimeWindow(10.0)

    assert window is window.resized(10.0, 5.0)
    assert window is not window.resized(20.0, 5.0)


@pytest.mark.parametrize("seconds", [5.0, 20.0])
def test_another_length_takes_over_what_is_young_enough(seconds: float) -> None:
    window = TimeWindow(10.0)
    for second in range(10):
        window.add(second >= 5, 100.0 + second)

    other = window.resized(seconds, 109.5)

    expected = (5, 5) if seconds < 10 else (5, 10)
    assert expected == counted(other)
    other.expire(109.5 + seconds)
    assert (0, 0) == counted(other)


def test_another_length_keeps_what_came_since_its_time_was_last_looked_at() -> None:
    """A closed breaker learns of a success without looking at the time of its other parts: a reload may know less."""
    window = TimeWindow(10.0)
    for second in range(10):
        window.add(second >= 5, 1_000.0 + second)

    other = window.resized(20.0, 0.0)
    other.expire(1_009.5)

    assert (5, 10) == counted(other)


def test_another_length_takes_over_nothing_that_is_too_old() -> None:
    window = TimeWindow(10.0)
    window.add(True, 100.0)

    assert (1, 1) == counted(window.resized(20.0, 109.0))
    assert (0, 0) == counted(window.resized(20.0, 111.0))


@settings(deadline=None)
@given(
    verdicts=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=40),
    old=st.sampled_from([1.0, 7.0, 30.0]),
    new=st.sampled_from([1.0, 7.0, 30.0, 300.0]),
    waited=st.floats(0, 40),
)
def test_another_length_invents_nothing_and_loses_nothing_that_is_surely_young(
    verdicts: list[tuple[float, bool]], old: float, new: float, waited: float
) -> None:
    """Ages are known to one bucket of the old length; a reload blurs by no more than that."""
    window, now, all_ = TimeWindow(old), 1_000.0, []
    for seconds, failed in verdicts:
        now += seconds
        window.add(failed, now)
        all_.append((now, failed))
    before = window.total

    other = window.resized(new, now)

    assert 0 <= other.failures <= other.total <= before
    sure = [failed for at, failed in all_ if now - at < 0.9 * min(old, new) - old / 10]
    assert len(sure) <= other.total
    assert sum(sure) <= other.failures
    other.expire(now + waited)
    assert 0 <= other.failures <= other.total
    other.expire(now + new + 1e-6)
    assert (0, 0) == counted(other)


class TimeWindowModel(RuleBasedStateMachine):
    """Against the list of everything: a verdict counts while fewer than ten buckets have begun since its own."""

    SECONDS = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.window = TimeWindow(self.SECONDS)
        self.now = 1_000.0
        self.all: list[tuple[float, bool]] = []

    @rule(failed=st.booleans(), seconds=st.sampled_from([0.0, 0.0, 0.3, 0.99, 1.0, 4.7]))
    def add(self, failed: bool, seconds: float) -> None:
        self.now += seconds
        self.window.add(failed, self.now)
        self.all.append((self.now, failed))

    @rule(seconds=st.floats(0, 12))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(back=st.floats(0, 50), failed=st.booleans())
    def add_by_an_older_reading(self, back: float, failed: bool) -> None:
        self.window.expire(self.now)
        self.window.add(failed, self.now - back)
        self.all.append((self.now, failed))

    @rule()
    def clear(self) -> None:
        self.window.clear()
        self.all = []

    @invariant()
    def counts_exactly_what_is_young(self) -> None:
        self.window.expire(self.now)
        span = self.SECONDS / 10
        self.all = [one for one in self.all if self.now - one[0] <= self.SECONDS]
        young = [failed for at, failed in self.all if int(self.now / span) - int(at / span) < 10]
        assert (sum(young), len(young)) == counted(self.window)
        assert all(self.now - at > 0.9 * self.SECONDS for at, _ in self.all[: len(self.all) - len(young)])


# --- by number -------------------------------------------------------------------------------------------------------


def test_the_oldest_verdict_makes_room_for_the_newest() -> None:
    window = CountWindow(3)

    seen = []
    for failed in (True, True, False, False, False, True):
        window.add(failed, 0.0)
        seen.append(counted(window))

    assert [(1, 1), (2, 2), (2, 3), (1, 3), (0, 3), (1, 3)] == seen


def test_calls_do_not_age() -> None:
    window = CountWindow(3)
    window.add(True, 0.0)

    window.expire(1e9)

    assert (1, 1) == counted(window)


def test_a_cleared_ring_counts_anew() -> None:
    window = CountWindow(2)
    for _ in range(3):
        window.add(True, 0.0)

    window.clear()
    window.add(False, 0.0)

    assert (0, 1) == counted(window)


def test_another_size_takes_over_the_latest_of_a_ring_that_has_turned() -> None:
    window = CountWindow(3)
    for failed in (False, False, True, True, False):
        window.add(failed, 0.0)

    assert [(0, 1), (1, 2), (2, 3)] == [counted(window.resized(size)) for size in (1, 2, 9)]


def test_the_same_size_keeps_the_ring_itself() -> None:
    window = CountWindow(3)

    assert window is window.resized(3)
    assert window is not window.resized(4)


class CountWindowModel(RuleBasedStateMachine):
    """Against the end of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.window = CountWindow(5)
        self.size = 5
        self.last: list[bool] = []

    @rule(failed=st.lists(st.booleans(), min_size=1, max_size=8))
    def add(self, failed: list[bool]) -> None:
        for one in failed:
            self.window.add(one, 0.0)
        self.last = [*self.last, *failed][-self.size :]

    @rule(size=st.integers(1, 9))
    def resize(self, size: int) -> None:
        self.window = self.window.resized(size)
        self.size = size
        self.last = self.last[-size:]

    @rule()
    def clear(self) -> None:
        self.window.clear()
        self.last = []

    @invariant()
    def sums_are_those_of_the_last(self) -> None:
        assert (sum(self.last), len(self.last)) == counted(self.window)


# --- reading them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "total", "expected"),
    [(0, 0, False), (9, 9, False), (4, 10, False), (5, 10, True), (10, 10, True), (5, 11, False)],
)
def test_a_rate_is_reached_at_its_exact_share_and_volume(failures: int, total: int, expected: bool) -> None:
    window = TimeWindow(10.0)
    for number in range(total):
        window.add(number < failures, 0.0)

    assert expected is is_reached(window, 0.5, 10, 0.0)


def test_a_rate_is_of_what_is_young_when_it_is_read() -> None:
    window = TimeWindow(10.0)
    for _ in range(10):
        window.add(True, 0.0)

    assert is_reached(window, 0.5, 10, 9.9)
    assert not is_reached(window, 0.5, 10, 10.0)
    assert not is_reached(None, 0.5, 0, 0.0)


def test_settings_decide_between_time_and_number_and_keep_what_fits() -> None:
    by_time = window_of(None, Settings(window_seconds=10.0, window_calls=None), 0.0)
    by_time.add(True, 0.0)
    by_number = window_of(by_time, Settings(window_calls=4), 0.0)

    assert isinstance(by_time, TimeWindow)
    assert isinstance(by_number, CountWindow)
    assert 0 == by_number.total  # seconds cannot be told in calls
    by_number.add(True, 0.0)
    assert 1 == window_of(by_number, Settings(window_calls=8), 0.0).total
    assert 0 == window_of(by_number, Settings(window_seconds=10.0), 0.0).total
    assert 1 == window_of(by_time, Settings(window_seconds=20.0), 0.0).total


_DOSE = settings(
    max_examples=MACHINE_EXAMPLES, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTimeWindow = MACHINE_SECONDS(TimeWindowModel.TestCase)
TestCountWindow = MACHINE_SECONDS(CountWindowModel.TestCase)
TestTimeWindow.settings = TestCountWindow.settings = _DOSE
