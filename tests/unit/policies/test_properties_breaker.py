"""The breaker's properties, by their ids: on the machine itself with time passed in, and with tasks, threads and event
loops where they are named."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import traceback
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.policies import Breaker, Consecutive, Policy, Rate, Slow, events
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS, Kind, verdict_of
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.window import TimeWindow
from spoolproof.testing.clock import ManualClock

from .breakers import FAILED, NEUTRAL, call, circuit, fail, opened, reload

Make = Callable[..., Policy]


async def away() -> None:
    raise ConnectionRefusedError("nobody listens")


def all_of(machine: Circuit, now: float) -> tuple[object, ...]:
    """Everything a verdict can change."""
    return (
        machine.state(now),
        machine.epoch,
        machine.round,
        machine.successes_total,
        machine.failures_total,
        machine.tally.counts(now),
        machine.snapshot(now, 0.0),
    )


# --- Q1 --------------------------------------------------------------------------------------------------------------


def test_q01_cancelled_calls_change_no_count_and_no_state() -> None:
    """Users who leave say nothing of the dependency."""
    machine = circuit(Breaker(Consecutive(5) | Rate(0.5, calls_min=5)))
    fail(machine, 0.0, 4)
    before = all_of(machine, 0.0)

    for _ in range(5):
        call(machine, 0.0, verdict_of(Kind.CANCELLED, is_unknown=True))

    assert before == all_of(machine, 0.0)
    fail(machine, 0.0)
    assert "open" == machine.state(0.0)


def test_q01_a_cancelled_probe_frees_its_slot_and_stays_half_open() -> None:
    """A probe nobody waits for any more must neither close the breaker nor block it."""
    machine = opened(probe_successes=1)
    probe = machine.enter(Call(), 5.0)
    assert not machine.would_admit(5.0)

    machine.leave(probe, Call(), NEUTRAL, 6.0)

    assert ("half_open", 0, True) == (machine.state(6.0), machine.round, machine.would_admit(6.0))
    call(machine, 6.0)
    assert "closed" == machine.state(6.0)


async def test_q01_cancelled_tasks_leave_the_breaker_of_a_policy_alone(make: Make, clock: ManualClock) -> None:
    psp = make(Breaker(Consecutive(3), open_seconds=5, open_jitter=0, probe_successes=1))

    async def cancelled_five_times() -> None:
        tasks = [asyncio.ensure_future(psp.call(asyncio.Event().wait)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    await cancelled_five_times()
    assert "closed" == psp.state
    for _ in range(3):
        await psp.result(away)
    await clock.advance(5)
    await cancelled_five_times()

    assert "half_open" == psp.state
    assert "fine" == await psp.call(lambda: "fine")
    assert "closed" == psp.state


# --- Q2 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes_max", [1, 3])
def test_q02_of_50_threads_in_half_open_exactly_the_probes_are_admitted(probes_max: int) -> None:
    """The probe is reserved in the step that admits it, so no two can take the same."""
    machine = opened(probes_max=probes_max)
    start = threading.Barrier(50)
    admitted: list[object] = []

    def one() -> None:
        start.wait()
        try:
            admitted.append(machine.enter(Call(), 6.0))
        except BreakerOpen:
            return

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert probes_max == len(admitted)


@pytest.mark.parametrize("probes_max", [1, 3])
async def test_q02_of_50_tasks_in_half_open_exactly_the_probes_are_admitted(
    make: Make, clock: ManualClock, probes_max: int
) -> None:
    psp = make(Breaker(Consecutive(1), open_seconds=1, open_jitter=0, probes_max=probes_max))
    await psp.result(away)
    await clock.advance(1)
    release = asyncio.Event()

    tasks = [asyncio.ensure_future(psp.result(release.wait)) for _ in range(50)]
    await asyncio.sleep(0)
    release.set()
    results = await asyncio.gather(*tasks)

    assert probes_max == sum(result.error is None for result in results)
    assert 50 - probes_max == sum(isinstance(result.error, BreakerOpen) for result in results)


def test_q02_of_50_callers_on_two_loops_exactly_the_probes_are_admitted(make: Make, clock: ManualClock) -> None:
    """One breaker serves both loops; nothing in it belongs to either."""
    psp = make(Breaker(Consecutive(1), open_seconds=5, open_jitter=0, probes_max=2))
    asyncio.run(_result(psp, away))
    asyncio.run(clock.advance(5))
    both = threading.Barrier(2)
    everybody_asked = threading.Barrier(2)
    results: list[Any] = []

    async def twenty_five() -> None:
        with clock.active():
            release = asyncio.Event()
            tasks = [asyncio.ensure_future(psp.result(release.wait)) for _ in range(25)]
            both.wait()
            await asyncio.sleep(0)
            everybody_asked.wait()
            release.set()
            results.extend(await asyncio.gather(*tasks))

    threads = [threading.Thread(target=lambda: asyncio.run(twenty_five())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 50 == len(results)
    assert 2 == sum(result.error is None for result in results)


async def _result(psp: Policy, function: Callable[[], Any]) -> Any:
    return await psp.result(function)


# --- Q3 --------------------------------------------------------------------------------------------------------------


def test_q03_a_verdict_of_an_older_epoch_changes_nothing() -> None:
    """A call that began before the outage says nothing of what is now."""
    machine = circuit(Breaker(Consecutive(1), open_seconds=5, open_jitter=0, probe_successes=1))
    old = [machine.enter(Call(), 0.0) for _ in range(4)]
    fail(machine, 0.0)
    machine.leave(old[0], Call(), SUCCESS, 1.0)
    assert "open" == machine.state(1.0)

    probe = machine.enter(Call(), 5.0)
    machine.leave(old[1], Call(), SUCCESS, 5.0)
    machine.leave(old[2], Call(), FAILED, 5.0)
    assert "half_open" == machine.state(5.0)
    assert not machine.would_admit(5.0)  # the probe is still out
    machine.leave(probe, Call(), SUCCESS, 5.0)
    machine.leave(old[3], Call(), FAILED, 5.0)

    assert "closed" == machine.state(5.0)
    assert (3, 3) == (machine.successes_total, machine.failures_total)
    assert {"consecutive": 0} == machine.tally.counts(5.0)


def test_q03_a_probe_of_an_older_round_frees_nobody_elses_slot() -> None:
    machine = opened(probe_lease_seconds=10, probe_successes=1)
    hung = machine.enter(Call(), 5.0)
    assert "open" == machine.state(15.0)
    machine.enter(Call(), 25.0)

    for verdict in (NEUTRAL, SUCCESS, FAILED):
        machine.leave(hung, Call(), verdict, 26.0)

        assert ("half_open", 1, False) == (machine.state(26.0), machine.round, machine.would_admit(26.0))


# --- Q4 --------------------------------------------------------------------------------------------------------------


def test_q04_a_hung_probe_opens_again_and_its_late_result_is_ignored() -> None:
    """One request that never comes back must not keep the breaker half open for ever."""
    machine = opened(probe_lease_seconds=30, probe_successes=1)
    hung = machine.enter(Call(), 5.0)
    assert "half_open" == machine.state(34.999)

    assert ("open", 1) == (machine.state(35.0), machine.round)
    assert 10.0 == machine.retry_after(35.0)
    machine.leave(hung, Call(), SUCCESS, 36.0)
    assert "open" == machine.state(36.0)
    call(machine, 35.0 + 10.0)
    assert "closed" == machine.state(45.0)


def test_q04_the_first_failing_probe_opens_again_whatever_the_volume() -> None:
    machine = circuit(Breaker(Rate(0.5, calls_min=100), open_seconds=5, open_jitter=0))
    fail(machine, 0.0, 100)
    assert "half_open" == machine.state(5.0)

    fail(machine, 5.0)

    assert ("open", 1) == (machine.state(5.0), machine.round)


# --- Q5 --------------------------------------------------------------------------------------------------------------


def test_q05_old_failures_are_gone_without_a_call_between() -> None:
    """A breaker that still counts what nobody remembers opens at the first hiccup of the next day."""
    window = TimeWindow(60.0)
    for _ in range(10):
        window.add(True, 5.0)
    machine = circuit(Breaker(Rate(0.5, window_seconds=60, calls_min=11)))
    fail(machine, 5.0, 10)

    window.expire(5.0 + 54.0)
    assert 10 == window.failures == machine.tally.counts(59.0)["failures"]
    window.expire(1_000.0)
    assert (0, 0) == (window.failures, window.total)
    assert 0 == machine.tally.counts(1_000.0)["failures_of"]
    fail(machine, 1_000.0, 10)

    assert "closed" == machine.state(1_000.0)


@pytest.mark.parametrize("day", [-86_400, 86_400])
async def test_q05_a_wall_clock_set_by_a_day_changes_nothing(make: Make, clock: ManualClock, day: int) -> None:
    """Durations are monotonic; the wall clock appears in snapshots only."""
    psp = make(Breaker(Consecutive(2), open_seconds=60, open_jitter=0))
    await psp.result(away)
    clock.move_wall(day)
    await psp.result(away)
    assert "open" == psp.state

    clock.move_wall(day)
    await clock.advance(59.9)
    assert "open" == psp.state

    await clock.advance(0.1)
    assert "half_open" == psp.state


# --- Q8 --------------------------------------------------------------------------------------------------------------


def test_q08_rejections_are_distinct_of_constant_depth_and_say_when_to_come_back() -> None:
    """A shared exception would collect a traceback of every caller it was ever raised in."""
    machine = opened()
    errors, depths = [], set()
    for _ in range(10_000):
        try:
            machine.enter(Call(), 1.0)
        except BreakerOpen as error:
            errors.append(error)
            depths.add(len(traceback.extract_tb(error.__traceback__)))

    assert 10_000 == len({id(error) for error in errors})
    assert 1 == len(depths)
    assert {(4.0, "Away: refused", None, True)} == {
        (error.retry_after_seconds, error.last_error_text, error.__context__, error.__suppress_context__)
        for error in errors
    }


@pytest.mark.parametrize("state", ["open", "half_open", "isolated"])
def test_q08_rejections_leave_no_memory_behind(state: str) -> None:
    """An outage of a night is millions of them."""
    machine = opened(open_seconds=60)
    now = 1.0
    if state == "half_open":
        now = 60.0
        machine.enter(Call(), now)
    if state == "isolated":
        machine.isolate("maintenance", 60, now)

    def reject(times: int) -> None:
        for _ in range(times):
            with pytest.raises(BreakerOpen):
                machine.enter(Call(), now)

    reject(100)
    gc.collect()
    tracemalloc.start()
    reject(5_000)
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert left < 20_000  # 4 bytes each would be more
    assert state == machine.state(now)


# --- Q19 -------------------------------------------------------------------------------------------------------------


def test_q19_calls_in_flight_past_the_limit_open_it_and_count_once() -> None:
    """A dependency that hangs returns nothing to judge; the time that passes is the judgement."""
    machine = circuit(Breaker(Slow(0.8, slow_seconds=5, calls_min=20), open_jitter=0))
    changes: list[events.BreakerChanged] = []
    machine.watch(changes.append)
    permits = [machine.enter(Call(), 0.0) for _ in range(20)]
    assert "closed" == machine.state(4.9)

    with pytest.raises(BreakerOpen):
        machine.enter(Call(), 5.0)
    for permit in permits:
        machine.leave(permit, Call(), FAILED, 6.0)

    assert (20, 20) == (changes[0].counts["slow"], changes[0].counts["slow_of"])
    assert ("open", 0, 20) == (machine.state(6.0), machine.tally.counts(6.0)["slow_of"], machine.failures_total)


@pytest.mark.parametrize("verdict", [SUCCESS, FAILED, NEUTRAL])
def test_q19_a_slow_call_counts_once_whatever_its_verdict(verdict: Any) -> None:
    machine = circuit(Breaker(Slow(1.0, slow_seconds=5, calls_min=3)))
    for start in (0.0, 10.0):
        permit = machine.enter(Call(), start)
        assert "closed" == machine.state(start + 6)
        machine.leave(permit, Call(), verdict, start + 7)

    counts = machine.tally.counts(17.0)
    assert (2, 2) == (counts["slow"], counts["slow_of"])


# --- Q21 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["closed", "open", "half_open", "isolated"])
def test_q21_new_thresholds_keep_state_and_timers(state: str) -> None:
    """A reload in the middle of an outage must not let everybody in."""
    machine = opened() if state in ("open", "half_open") else circuit()
    if state == "isolated":
        machine.isolate("maintenance", 60, 0.0)
    now = 5.0 if state == "half_open" else 1.0
    before = (machine.state(now), machine.retry_after(now), machine.round, machine.epoch)
    assert state == before[0]

    reload(machine, Breaker(Rate(0.9, window_seconds=60), open_seconds=1, open_jitter=0))

    assert before == (machine.state(now), machine.retry_after(now), machine.round, machine.epoch)


def test_q21_calls_in_flight_are_judged_by_the_new_thresholds() -> None:
    machine = circuit(Breaker(Consecutive(10)))
    permits = [machine.enter(Call(), 0.0) for _ in range(3)]

    reload(machine, Breaker(Consecutive(3)))
    for permit in permits:
        machine.leave(permit, Call(), FAILED, 1.0)

    assert "open" == machine.state(1.0)


def test_q21_calls_in_flight_can_still_become_slow() -> None:
    machine = circuit(Breaker(Slow(1.0, slow_seconds=5, calls_min=3)))
    for _ in range(3):
        machine.enter(Call(), 0.0)

    reload(machine, Breaker(Slow(1.0, slow_seconds=7, calls_min=3)))

    assert ["closed", "open"] == [machine.state(6.9), machine.state(7.0)]


def test_q21_a_probe_in_flight_stays_the_probe() -> None:
    machine = opened(probe_successes=3)
    probe = machine.enter(Call(), 5.0)

    reload(machine, Breaker(Consecutive(1), probe_successes=1))
    assert not machine.would_admit(5.0)
    machine.leave(probe, Call(), SUCCESS, 6.0)

    assert "closed" == machine.state(6.0)


@pytest.mark.parametrize("window_seconds", [30, 60])
def test_q21_what_was_counted_stays_under_the_same_and_under_another_length(window_seconds: int) -> None:
    machine = circuit(Breaker(Rate(0.5, window_seconds=30, calls_min=20)))
    fail(machine, 100.0, 4)
    assert "closed" == machine.state(100.0)

    reload(machine, Breaker(Rate(0.5, window_seconds=window_seconds, calls_min=5)))
    assert 4 == machine.tally.counts(100.0)["failures"]
    fail(machine, 101.0)

    assert "open" == machine.state(101.0)


# --- Q23 -------------------------------------------------------------------------------------------------------------


def kept_of(machine: Circuit, now: float, wall: float) -> dict[str, Any]:
    """A snapshot as a policy writes it, through JSON."""
    data = {"version": 1, "saved_at": wall, **machine.snapshot(now, wall)}
    read: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    return read


def test_q23_a_snapshot_keeps_the_remaining_time_and_the_round() -> None:
    machine = opened(open_seconds=60)
    fail(machine, 60.0)
    kept = kept_of(machine, 70.0, 1_000.0)
    other = circuit(Breaker(Consecutive(1), open_seconds=60))
    changes: list[events.BreakerChanged] = []
    other.watch(changes.append)

    other.restore(kept, 3.0, 1_020.0)

    assert [("closed", "open", "restored")] == [(change.old, change.new, change.reason) for change in changes]
    assert ("open", 1, 30.0) == (other.state(3.0), other.round, pytest.approx(other.retry_after(3.0)))
    assert "half_open" == other.state(33.0)


def test_q23_the_remaining_time_is_at_most_the_maximum_and_at_least_none() -> None:
    """The wall clock of the process that saved it may have been wrong."""
    kept = kept_of(opened(), 1.0, 1_000.0)
    late, early = circuit(), circuit()

    late.restore(kept | {"open_until": 9_999.0}, 0.0, 1_000.0)
    early.restore(kept | {"open_until": 5.0}, 0.0, 1_000.0)

    assert 60.0 == late.retry_after(0.0)
    assert "half_open" == early.state(0.0)


def test_q23_half_open_comes_back_as_a_probe_and_isolations_with_what_they_have_left() -> None:
    machine = opened()
    assert "half_open" == machine.state(5.0)
    half_open, isolated = circuit(), circuit()

    half_open.restore(kept_of(machine, 5.0, 1_000.0), 0.0, 1_000.0)
    machine.isolate("over by then", 10, 5.0)
    machine.isolate("maintenance", 600, 5.0)
    isolated.restore(kept_of(machine, 5.0, 1_000.0), 0.0, 1_100.0)

    assert "half_open" == half_open.state(0.0)
    assert ("isolated", 500.0) == (isolated.state(0.0), isolated.retry_after(0.0))
    assert "half_open" == isolated.state(500.0)


@pytest.mark.parametrize(
    ("age", "expected"),
    [(-61.0, "closed"), (-60.0, "open"), (0.0, "open"), (86_400.0, "half_open"), (86_401.0, "closed")],
)
def test_q23_a_snapshot_of_yesterday_or_of_tomorrow_is_ignored(age: float, expected: str) -> None:
    """A minute ahead is another machine's clock; more, or a day, says nothing of now."""
    machine = circuit()

    machine.restore(kept_of(opened(), 1.0, 1_790_000_000.0), 0.0, 1_790_000_000.0 + age)

    assert expected == machine.state(0.0)


def test_q23_a_closed_one_brings_nothing_back() -> None:
    machine = circuit()

    machine.restore(kept_of(circuit(), 0.0, 1_000.0), 0.0, 1_000.0)

    assert ("closed", 1) == (machine.state(0.0), machine.epoch)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"state": "ajar"},
        {"state": []},
        {"round": -1},
        {"round": True},
        {"round": 1.5},
        {"open_until": "soon"},
        {"open_until": None},
        {"open_until": float("nan")},
        {"saved_at": 0.0},
        {"saved_at": 99_999.0},
        {"isolations": [{}]},
        {"isolations": None},
    ],
)
def test_q23_a_damaged_snapshot_is_ignored_with_an_event(damage: dict[str, Any], told: list[events.Event]) -> None:
    """State that cannot be read is no reason not to start."""
    kept = kept_of(opened(), 1.0, 90_000.0) | damage
    machine = circuit()

    machine.restore(kept, 0.0, 90_000.0)

    assert "closed" == machine.state(0.0)
    assert ["RestoreIgnored"] == [
        type(event).__name__ for event in told if not isinstance(event, events.BreakerChanged)
    ]


_NAMES = st.sampled_from(["version", "saved_at", "state", "round", "open_until", "isolations"])
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["open", "isolated", "closed"]), st.text()
)
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)


@settings(deadline=None)
@given(damage=st.dictionaries(_NAMES, _JSON, max_size=3), missing=st.sets(_NAMES, max_size=1))
@example(damage={"isolations": [{"reason": "x", "until": 9e11}], "state": "isolated"}, missing=set())
@example(damage={"round": 10**400}, missing=set())
def test_q23_whatever_is_in_a_snapshot_it_never_raises_and_never_closes_the_door_for_good(
    damage: dict[str, Any], missing: set[str]
) -> None:
    kept = kept_of(opened(), 1.0, 90_000.0) | damage
    for name in missing:
        kept.pop(name, None)
    machine = circuit(Breaker(Consecutive(1)))

    machine.restore(kept, 0.0, 90_000.0)

    assert 0 < machine.retry_after(0.0) <= 86_400
    assert machine.would_admit(86_400.0)
    fail(machine, 86_400.0)
    assert "open" == machine.state(86_400.0)


# --- Q31 -------------------------------------------------------------------------------------------------------------


def test_q31_two_isolations_end_one_by_one_and_lead_to_a_probe() -> None:
    """Each was somebody's decision, and only that person knows that it is over."""
    machine = circuit()
    first, second = machine.isolate("maintenance", 600, 0.0), machine.isolate("incident 7", 600, 0.0)
    first.release(1.0)
    first.release(1.0)
    assert "isolated" == machine.state(1.0)

    second.release(2.0)

    assert "half_open" == machine.state(2.0)
    with pytest.raises(PolicyConfigError, match="reason"):
        machine.isolate("", None, 3.0)


@pytest.mark.parametrize("rule", [Rate(0.5, calls_min=20), Consecutive(2), Rate(0.4, window_calls=30, calls_min=30)])
def test_q31_observe_reports_the_first_opening_that_enforce_makes_and_rejects_nothing(rule: Any) -> None:
    """What a rule would have done is worth knowing only if it is what it would have done."""
    trace = [FAILED if number % 3 else SUCCESS for number in range(200)]
    found = {}
    for mode in ("enforce", "observe"):
        machine = circuit(Breaker(rule, mode=mode))
        changes: list[events.BreakerChanged] = []
        machine.watch(changes.append)
        rejected = 0
        for number, verdict in enumerate(trace):
            try:
                call(machine, number / 10, verdict)
            except BreakerOpen:
                rejected += 1
            if changes and mode not in found:
                found[mode] = (number, changes[0].old, changes[0].new, changes[0].reason, changes[0].counts)
        assert (rejected == 0) == (mode == "observe")
        assert (mode == "observe") == changes[0].observed

    assert found["enforce"] == found["observe"]


# --- Q32 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "calls", "failures", "seconds"),
    [("delivery-service", 5, 2, 60), ("product-service", 10, 5, 30), ("database", 10, 6, 20)],
)
def test_q32_a_preset_opens_at_its_exact_volume_and_rate(preset: str, calls: int, failures: int, seconds: int) -> None:
    """Not one call earlier, and it probes at its exact reset; one good probe closes."""
    under, early, exact = circuit(preset=preset), circuit(preset=preset), circuit(preset=preset)
    for machine, wrong, total in (
        (under, failures - 1, calls),
        (early, calls - 1, calls - 1),
        (exact, failures, calls),
    ):
        for _ in range(total - wrong):
            call(machine, 0.0)
        fail(machine, 0.0, wrong)
    assert ["closed", "closed", "open"] == [machine.state(0.0) for machine in (under, early, exact)]

    assert ["open", "half_open"] == [exact.state(seconds - 0.001), exact.state(seconds)]
    call(exact, float(seconds))
    assert "closed" == exact.state(float(seconds))


@pytest.mark.parametrize(("preset", "seconds"), [("delivery-service", 60), ("database", 20), ("classic", 30)])
def test_q32_a_presets_reset_is_exact_also_after_failed_probes(preset: str, seconds: int) -> None:
    machine = circuit(preset=preset)
    while machine.state(0.0) == "closed":
        fail(machine, 0.0)

    for number in range(1, 5):
        assert ["open", "half_open"] == [machine.state(number * seconds - 0.001), machine.state(number * seconds)]
        fail(machine, float(number * seconds))


def test_q32_classic_opens_at_five_failures_in_a_row() -> None:
    machine = circuit(preset="classic")
    fail(machine, 0.0, 4)
    call(machine, 0.0)
    fail(machine, 0.0, 4)
    assert "closed" == machine.state(0.0)

    fail(machine, 0.0)

    assert ["open", "half_open"] == [machine.state(29.9), machine.state(30.0)]


def test_q32_aliases_in_milliseconds_equal_native_settings() -> None:
    environ = {"CB_FAILURE_THRESHOLD": "5", "CB_RESET_TIMEOUT": "30000", "CB_MONITOR_PERIOD": "60000"}
    machine = circuit(environ=environ)
    fail(machine, 0.0, 4)
    fail(machine, 61.0)
    assert "closed" == machine.state(61.0)

    fail(machine, 61.0, 4)

    assert ["open", "half_open"] == [machine.state(90.9), machine.state(91.0)]
