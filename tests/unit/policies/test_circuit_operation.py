"""The breaker's machine as people run it: isolations, resets, modes, and what it tells."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.policies import Breaker, Consecutive, Rate, Slow, events
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS
from spoolproof.policies.machines.circuit import Circuit

from .breakers import FAILED, NEUTRAL, Fixed, call, changes_of, circuit, fail, opened, rejected, reload, resolve
from .waiting import wait_blocking

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


def test_a_reason_may_fill_its_200_characters() -> None:
    machine = circuit()

    machine.isolate("x" * 200, 86_400, 0.0)

    assert "isolated" == machine.state(86_399.0)


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


def test_a_rejection_names_an_isolation_that_still_holds() -> None:
    """The next person asks whoever is named; also after another one was released, and after a restart."""
    machine = circuit()
    machine.isolate("maintenance", 60, 0.0)
    machine.isolate("a drill", 60, 0.0).release(1.0)
    restored = circuit()
    restored.restore({"version": 1, "saved_at": 0.0, **machine.snapshot(1.0, 0.0)}, 1.0, 0.0)

    assert ["maintenance"] * 2 == [rejected(machine, 1.0).reason, rejected(restored, 1.0).reason]


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
    machine.isolate("again", 60, 7.0).release(7.0)
    assert "half_open" == machine.state(7.0)  # of this isolation alone
    machine.reset("checked by hand", 7.0)

    assert ("closed", 0) == (machine.state(7.0), machine.round)
    assert [] == machine.snapshot(7.0, 0.0)["isolations"]
    call(machine, 7.0)
    fail(machine, 7.0)
    assert 5.0 == machine.retry_after(7.0)


def test_a_reset_ends_a_ramp_and_forgets_the_last_error() -> None:
    machine = opened(ramp_seconds=10, probe_successes=1)
    call(machine, 5.0)

    machine.reset("checked by hand", 6.0)

    assert (1.0, machine.epoch) == (machine.admitted_share(6.0), machine.plain_epoch)
    machine.isolate("maintenance", 60, 6.0)
    assert "" == rejected(machine, 6.0).last_error_text


def test_watchers_hear_of_what_people_do_at_once() -> None:
    """The next call may be an hour away, and the consumer that waits is woken by this."""
    machine = opened()
    changes = changes_of(machine)

    machine.probe_now("ping", 1.0)
    handle = machine.isolate("maintenance", 60, 1.0)
    handle.release(2.0)
    assert 3 == len(changes)
    machine.reset("checked by hand", 3.0)

    assert [("half_open", "ping"), ("isolated", "maintenance"), ("half_open", "the last isolation ended")] == [
        (change.new, change.reason) for change in changes[:3]
    ]
    assert ("closed", "checked by hand", 4) == (changes[3].new, changes[3].reason, len(changes))


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


def test_what_began_before_it_was_turned_off_counts_for_nothing_either() -> None:
    """Somebody turns a breaker off because it is wrong: it must not open behind his back."""
    rule = Consecutive(1) | Slow(0.5, slow_seconds=5, calls_min=1)
    machine = circuit(Breaker(rule))
    changes = changes_of(machine)
    failing, _slow = machine.enter(Call(), 0.0), machine.enter(Call(), 0.0)

    reload(machine, Breaker(rule, mode="off"))
    machine.leave(failing, Call(), FAILED, 1.0)
    reload(machine, Breaker(rule))

    assert ("closed", 1, []) == (machine.state(9.0), machine.failures_total, changes)


def test_a_probe_that_began_before_it_was_turned_off_gives_its_slot_back_and_judges_nothing() -> None:
    machine = opened(probe_successes=1)
    probe = machine.enter(Call(), 5.0)

    reload(machine, Breaker(Consecutive(1), probe_successes=1, mode="off"))
    machine.leave(probe, Call(), SUCCESS, 6.0)
    reload(machine, Breaker(Consecutive(1), probe_successes=1))

    assert ("half_open", True) == (machine.state(6.0), machine.would_admit(6.0))


async def test_off_admits_whoever_waits_too() -> None:
    machine = circuit(Breaker(Consecutive(1), mode="off"))

    permits = [wait_blocking(machine, Call()), await machine.wait(Call())]
    for permit in permits:
        machine.leave(permit, Call(), FAILED, 0.0)

    assert "closed" == machine.state(0.0)


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


def test_totals_count_every_verdict_that_says_something() -> None:
    """Whatever the state, the epoch, and the way through the code."""
    machine = circuit(Breaker(Consecutive(2), open_jitter=0, probe_successes=1))
    old = [machine.enter(Call(), 0.0) for _ in range(3)]

    for _ in range(3):
        call(machine, 0.0)
    fail(machine, 0.0, 2)
    call(machine, 5.0)
    for permit, verdict in zip(old, (SUCCESS, FAILED, NEUTRAL), strict=True):
        machine.leave(permit, Call(), verdict, 5.0)

    assert (5, 3) == (machine.successes_total, machine.failures_total)


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        (Rate(0.5, window_seconds=30), 3.0),
        (Rate(0.5, window_calls=10), float("-inf")),
        (Consecutive(3), float("inf")),
        (Slow(0.5, slow_seconds=1), float("inf")),
    ],
)
@pytest.mark.parametrize("before", [Rate(0.5, window_seconds=60), Rate(0.5, window_calls=20), Consecutive(3)])
def test_a_success_may_be_counted_the_short_way_only_where_that_counts_it(
    before: Rate | Consecutive, rule: Rate | Consecutive | Slow, ends: float
) -> None:
    """Who is in a hurry adds to `plain_window` until its end, instead of asking the rule."""
    machine = circuit(Breaker(before))
    reload(machine, Breaker(rule))

    window = machine.tally.plain_window
    assert ends == window.ends

    window.total += 1
    expected = 1 if ends == 3.0 else 0
    assert expected == machine.tally.counts().get("failures_of", 0)


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
    other: list[events.BreakerChanged] = []
    unwatch, *_ = machine.watch(kept.append), machine.watch(kept.append), machine.watch(other.append)

    unwatch()
    unwatch()
    fail(machine, 0.0)

    assert (1, 1) == (len(kept), len(other))


# --- time and threads ------------------------------------------------------------------------------------------------


def test_a_reading_from_the_past_neither_opens_nor_closes() -> None:
    machine = opened()
    assert "half_open" == machine.state(5.0)

    assert "half_open" == machine.state(0.0)
    machine.isolate("maintenance", 10, 5.0)
    assert 10.0 == machine.retry_after(0.0)


def test_a_probe_admitted_by_an_older_reading_has_its_whole_lease() -> None:
    machine = opened(probe_lease_seconds=10)
    assert "half_open" == machine.state(5.0)

    machine.enter(Call(), 1.0)

    assert ["half_open", "open"] == [machine.state(14.9), machine.state(15.0)]


class Overtaken:
    """A lock before which somebody else comes: a reset happens between looking and locking."""

    def __init__(self, machine: Circuit) -> None:
        self._machine = machine
        self._lock = machine.lock

    def __enter__(self) -> None:
        self._machine.lock = self._lock
        self._machine.reset("by another thread", 0.0)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_success_that_is_overtaken_by_a_transition_is_of_an_older_epoch() -> None:
    """The cheap way looks before it locks, so it has to look again."""
    machine = circuit()
    permit = machine.enter(Call(), 0.0)

    machine.lock = Overtaken(machine)  # type: ignore[assignment]
    machine.leave(permit, Call(), SUCCESS, 0.0)

    assert (1, 0) == (machine.successes_total, machine.tally.counts()["failures_of"])


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [(Breaker(Rate()), True), (Breaker(Slow(0.5, slow_seconds=1)), False), (Breaker(mode="off"), True)],
)
def test_a_plainly_closed_breaker_admits_without_its_lock(breaker: Breaker, expected: bool) -> None:
    machine = circuit(breaker)
    locked: list[bool] = []
    machine.lock = Noticed(machine.lock, locked)

    assert expected is (machine.plain_epoch != 0)
    assert machine.enter(Call(), 0.0)
    assert expected is (locked == [])


class Noticed:
    """A lock that tells that it was taken."""

    def __init__(self, lock: Any, taken: list[bool]) -> None:
        self._lock = lock
        self._taken = taken

    def __enter__(self) -> None:
        self._taken.append(True)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_breaker_is_small() -> None:
    """A key may take 4 KiB in all, and there may be a thousand; settings are shared."""
    shared = resolve(Breaker(Rate() | Consecutive(10, within_seconds=60) | Slow(0.5, slow_seconds=5)))
    kept = [Circuit("psp", "first", random=Fixed(0.5), **shared)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept += [Circuit("psp", str(number), random=Fixed(0.5), **shared) for number in range(500)]
    used = (tracemalloc.get_traced_memory()[0] - before) / 500
    tracemalloc.stop()

    assert used < 2_500


async def test_waiting_at_a_breaker_is_being_admitted_or_rejected_at_once() -> None:
    """It has no queue."""
    machine = opened()
    waiting = Call()
    waiting.now = 1.0
    with pytest.raises(BreakerOpen):
        await machine.wait(waiting)
    with pytest.raises(BreakerOpen):
        wait_blocking(machine, waiting)

    waiting.now = 5.0
    probe = await machine.wait(waiting)
    machine.leave(probe, waiting, SUCCESS, 5.0)
    assert wait_blocking(machine, waiting)
