"""What once survived `tests/mutation.py`, which changes the breaker in a thousand small ways: each test kills some.
`tests/SURVIVORS.md` says what still does, and why."""

from __future__ import annotations

import pytest

from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.policies import Breaker, Consecutive, Slow
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS
from spoolproof.policies.machines.window import TimeWindow

from .breakers import circuit, fail, opened, reload


def test_a_window_that_is_resized_keeps_what_still_belongs_in_it() -> None:
    """A reload in an outage must neither forget the failures nor count those that are too old."""
    for seconds, total, failures in ((100.0, 4, 3), (20.0, 4, 3), (5.0, 2, 1), (1.0, 1, 0)):
        window = TimeWindow(10.0)
        for at, failed in ((0.5, True), (2.5, True), (6.5, True), (9.5, False)):
            window.add(failed, at)

        other = window.resized(seconds, 9.5)

        assert (total, failures) == (other.total, other.failures), seconds
        other.expire(9.5 + 1.1 * seconds)
        assert (0, 0) == (other.total, other.failures), seconds
        other.add(True, 9.5 + 1.1 * seconds)
        assert (1, 1) == (other.total, other.failures), seconds
    assert window is window.resized(10.0, 500.0)


def test_a_window_moves_on_at_the_end_of_each_bucket_though_nobody_reads_it() -> None:
    """Each verdict looks at `ends` alone; were it late, old failures would count on."""
    window = TimeWindow(10.0)
    for second in range(30):
        window.add(second % 2 == 0, second + 0.0)
        assert second + 1.0 == window.ends
        assert (min(second + 1, 10), (min(second + 1, 10) + (second < 10 and second % 2 == 0)) // 2) == (
            window.total,
            window.failures,
        )


def test_an_isolation_takes_what_its_bounds_say_and_lasts_an_hour_unless_told() -> None:
    """Someone isolates in a hurry: a typing error must be refused, not obeyed."""
    for reason, seconds in (("", 5), (" ", 5), ("x" * 201, 5), (None, 5), ("why", 0.9), ("why", 86_401), ("why", True)):
        with pytest.raises(PolicyConfigError):
            circuit().isolate(reason, seconds, 0.0)  # type: ignore[arg-type]
    for reason, seconds in (("x", 1), ("x" * 200, 86_400), ("why", 1.5), ("why", None)):
        machine = circuit()
        machine.isolate(reason, seconds, 0.0)
        lasts = 3600 if seconds is None else seconds
        assert "isolated" == machine.state(lasts - 0.01)
        assert "half_open" == machine.state(lasts)


def test_a_restored_isolation_has_its_reason_its_round_and_its_time_left() -> None:
    """The next person after a restart reads why, and it ends when it would have ended."""
    machine = opened()
    machine.round = 3
    machine.isolate("maintenance", 100, 1.0)
    kept = {"version": 1, "saved_at": 1_000.0} | machine.snapshot(11.0, 1_000.0)

    other = circuit()
    assert other.restore(kept, 50.0, 1_010.0) is True

    assert 3 == other.round
    assert [("maintenance", 130.0)] == [(one.reason, one.until) for one in other.isolations.active]
    assert 80.0 == pytest.approx(other.retry_after(50.0))
    assert "isolated" == other.state(59.9)
    other.isolations.active[0].release(60.0)
    assert "half_open" == other.state(60.0)


def test_a_slow_probe_opens_again_for_longer_and_says_so() -> None:
    """A dependency that answers, but too late, is not back."""
    machine = circuit(
        Breaker(Consecutive(1) | Slow(0.5, slow_seconds=2), open_jitter=0, open_seconds=5, open_seconds_max=60)
    )
    fail(machine, 0.0)
    probe = machine.enter(Call(), 5.0)
    assert "half_open" == machine.state(6.9)

    assert "open" == machine.state(7.0)

    assert 1 == machine.round
    assert 10.0 == machine.retry_after(7.0)
    with pytest.raises(BreakerOpen, match="a probe took longer than 2 s") as caught:
        machine.enter(Call(), 8.0)
    assert "a probe was slow" == caught.value.last_error_text
    machine.leave(probe, Call(), SUCCESS, 9.0)
    assert "open" == machine.state(16.9)


def test_an_unwatched_breaker_tells_only_those_who_still_watch() -> None:
    """A consumer that has stopped must not be woken, and the others must."""
    machine = circuit()
    first: list[str] = []
    second: list[str] = []
    unwatch = machine.watch(lambda change: first.append(change.reason))
    machine.watch(lambda change: second.append(change.reason))
    machine.reset("one", 0.0)
    unwatch()
    machine.reset("two", 0.0)

    assert (["one"], ["one", "two"]) == (first, second)


def test_a_failed_probe_says_why_and_obeys_what_the_dependency_asked_for() -> None:
    """Its Retry-After counts as much when it comes with a probe; who is turned away meanwhile reads the new error."""
    machine = opened(open_seconds_max=60)
    probe = machine.enter(Call(), 5.0)
    with pytest.raises(BreakerOpen) as caught:
        machine.enter(Call(), 5.0)
    told = caught.value
    assert ("psp", "half_open", "time to probe") == (told.policy, told.state, told.reason)

    machine.conclude(probe, True, 6.0, "Busy: later", 40.0)

    assert ("open", 40.0) == (machine.state(6.0), machine.retry_after(6.0))
    with pytest.raises(BreakerOpen, match="a probe failed: Busy: later") as caught:
        machine.enter(Call(), 7.0)
    assert "Busy: later" == caught.value.last_error_text


# --- what a reload keeps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_seconds", [30, 60])
def test_a_reload_keeps_the_slow_calls_that_were_counted(window_seconds: float) -> None:
    machine = circuit(Breaker(Slow(0.5, slow_seconds=5, calls_min=4)))
    for _ in range(3):
        machine.enter(Call(), 0.0)
    assert "closed" == machine.state(5.0)

    reload(machine, Breaker(Slow(0.5, slow_seconds=5, calls_min=4, window_seconds=window_seconds)))

    counts = machine.tally.counts(5.0)
    assert (3, 3) == (counts["slow"], counts["slow_of"])


def test_a_reload_keeps_the_times_of_a_streak() -> None:
    machine = circuit(Breaker(Consecutive(3, within_seconds=60)))
    for now in (0.0, 1.0):
        fail(machine, now)

    reload(machine, Breaker(Consecutive(3, within_seconds=50)))
    fail(machine, 2.0)

    assert "open" == machine.state(2.0)


def test_a_streak_without_times_does_not_count_where_a_reload_asks_for_them() -> None:
    """Those failures may be of last week: it takes as many new ones as the rule says."""
    machine = circuit(Breaker(Consecutive(5)))
    fail(machine, 0.0, 4)
    reload(machine, Breaker(Consecutive(3, within_seconds=60)))

    states = []
    for _ in range(3):
        fail(machine, 100.0)
        states.append(machine.state(100.0))

    assert ["closed", "closed", "open"] == states


def test_failures_too_far_apart_to_open_it_take_no_memory() -> None:
    """A job that fails once an hour, for a year."""
    machine = circuit(Breaker(Consecutive(3, within_seconds=10)))

    for number in range(100):
        fail(machine, 3_600.0 * number)

    assert machine.tally._failed_at is not None
    assert 3 == len(machine.tally._failed_at)
