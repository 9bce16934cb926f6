"""The breaker's properties, on the machine itself with time passed in, and under threads where they are named."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spoolproof.backoff import seeded_random
from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.policies import Breaker, Consecutive, Policy, Rate, Registry, Slow, config, events
from spoolproof.policies.call import Call
from spoolproof.policies.circuit import Circuit
from spoolproof.policies.verdict import SUCCESS, Kind, verdict_of
from spoolproof.policies.window import CountWindow, TimeWindow
from spoolproof.testing.clock import ManualClock

from ..doses import examples

FAILED = verdict_of(Kind.TRANSIENT, reason="Away: refused")
NEUTRAL = verdict_of(Kind.CANCELLED)


def circuit(
    breaker: Breaker | None = None, *, preset: str | None = None, environ: dict[str, str] | None = None
) -> Circuit:
    """A machine with the settings a policy of this breaker would have."""
    sources, faults = config.load(environ or {}, None)
    assert [] == faults
    resolved = config.resolve("psp", [breaker or Breaker()], sources, preset=preset)
    assert () == resolved.faults
    values = dict(resolved.values)
    mode = values.pop("mode")
    return Circuit("psp", None, rule=resolved.rule, mode=mode, random=seeded_random(1), settings=values)


def call(machine: Circuit, now: float, verdict: Any = SUCCESS) -> None:
    """One call that ends at once."""
    machine.leave(machine.enter(Call(), now), Call(), verdict, now)


def fail(machine: Circuit, now: float, times: int = 1) -> None:
    for _ in range(times):
        call(machine, now, FAILED)


def opened(**given: Any) -> Circuit:
    machine = circuit(Breaker(Consecutive(1), **({"open_jitter": 0, "open_seconds": 5} | given)))
    fail(machine, 0.0)
    return machine


def test_q02_simultaneous_callers_in_half_open_get_exactly_the_probes() -> None:
    """Threads: the probe is reserved in the step that admits it, so no two can take the same."""
    machine = opened(probes_max=2)
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

    assert 2 == len(admitted)


async def test_q02_the_same_with_tasks_and_two_loops(clock: ManualClock) -> None:
    policy = Policy("q2", Breaker(Consecutive(1), open_seconds=1, open_jitter=0), registry=Registry({}), clock=clock)

    async def fails() -> None:
        raise ConnectionRefusedError

    async def hangs(release: asyncio.Event) -> None:
        await release.wait()

    await policy.result(fails)
    await clock.advance(1)
    release = asyncio.Event()
    tasks = [asyncio.ensure_future(policy.result(hangs, release)) for _ in range(50)]
    elsewhere: list[Any] = []

    async def fifty() -> list[Any]:
        return [await policy.result(lambda: None) for _ in range(50)]

    thread = threading.Thread(target=lambda: elsewhere.extend(asyncio.run(fifty())))
    await asyncio.sleep(0)
    thread.start()
    thread.join()
    release.set()
    results = [*await asyncio.gather(*tasks), *elsewhere]

    assert 1 == sum(result.error is None for result in results)


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
    machine.leave(probe, Call(), SUCCESS, 5.0)
    machine.leave(old[3], Call(), FAILED, 5.0)

    assert "closed" == machine.state(5.0)
    assert (3, 3) == (machine.successes_total, machine.failures_total)


def test_q04_a_hung_probe_opens_again_and_its_late_result_is_ignored() -> None:
    """One request that never comes back must not keep the breaker half open for ever."""
    machine = opened(probe_lease_seconds=30, probe_successes=1)
    hung = machine.enter(Call(), 5.0)

    assert "open" == machine.state(35.0)
    assert 1 == machine.round
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


def test_q05_old_failures_are_gone_without_a_call_between() -> None:
    """A breaker that still counts what nobody remembers opens at the first hiccup of the next day."""
    window = TimeWindow(60.0)
    for _ in range(10):
        window.add(True, 5.0)

    window.expire(5.0 + 54.0)
    assert 10 == window.failures
    window.expire(1000.0)
    assert (0, 0) == (window.failures, window.total)


def test_q08_rejections_are_distinct_and_name_the_last_error() -> None:
    machine = opened()
    errors = []
    for _ in range(10_000):
        try:
            machine.enter(Call(), 1.0)
        except BreakerOpen as error:
            errors.append(error)

    assert 10_000 == len({id(error) for error in errors})
    assert {(4.0, "Away: refused", None)} == {
        (error.retry_after_seconds, error.last_error_text, error.__context__) for error in errors
    }


def test_q19_calls_in_flight_past_the_limit_open_it_and_count_once() -> None:
    """A dependency that hangs returns nothing to judge; the time that passes is the judgement."""
    machine = circuit(Breaker(Slow(0.8, slow_seconds=5, calls_min=20)))
    permits = [machine.enter(Call(), 0.0) for _ in range(20)]
    assert "closed" == machine.state(4.9)

    with pytest.raises(BreakerOpen):
        machine.enter(Call(), 5.0)
    for permit in permits:
        machine.leave(permit, Call(), FAILED, 6.0)

    assert 0 == machine.tally._slow.total  # cleared when it opened; those that end later belong to an older epoch


def test_a_slow_call_counts_once_whatever_its_verdict() -> None:
    machine = circuit(Breaker(Slow(1.0, slow_seconds=5, calls_min=3)))
    for start in (0.0, 10.0):
        permit = machine.enter(Call(), start)
        assert "closed" == machine.state(start + 6)
        machine.leave(permit, Call(), NEUTRAL, start + 7)

    assert (2, 2) == (machine.tally._slow.failures, machine.tally._slow.total)


@pytest.mark.parametrize("state", ["closed", "open", "half_open", "isolated"])
def test_q21_new_thresholds_keep_state_and_timers(state: str) -> None:
    """A reload in the middle of an outage must not let everybody in."""
    machine = opened() if state in ("open", "half_open") else circuit()
    if state == "isolated":
        machine.isolate("maintenance", 60, 0.0)
    now = 5.0 if state == "half_open" else 1.0
    before = (machine.state(now), machine._open_until, machine.round, machine.epoch)
    other = config.resolve("psp", [Breaker(Rate(0.9, window_seconds=60))], config.NOTHING)

    machine.configure(rule=other.rule, mode="enforce", settings=other.values)

    assert before == (machine.state(now), machine._open_until, machine.round, machine.epoch)


def test_q23_a_snapshot_keeps_the_remaining_time() -> None:
    machine = opened(open_seconds=60)
    kept = json.loads(json.dumps({"version": 1, "saved_at": 1000.0, **machine.snapshot(10.0, 1000.0)}))
    other = circuit(Breaker(Consecutive(1), open_seconds=60))

    other.restore(kept, 3.0, 1020.0)

    assert ("open", 30.0) == (other.state(3.0), pytest.approx(other.retry_after(3.0)))


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"state": "ajar"},
        {"round": -1},
        {"open_until": "soon"},
        {"open_until": float("nan")},
        {"saved_at": 0.0},
        {"saved_at": 99_999.0},
        {"isolations": [{}]},
        {"isolations": None},
    ],
)
def test_q23_a_damaged_snapshot_is_ignored_with_an_event(damage: dict[str, Any], told: list[events.Event]) -> None:
    """State that cannot be read is no reason not to start."""
    kept = {"version": 1, "saved_at": 90_000.0, **opened().snapshot(1.0, 90_000.0)} | damage
    machine = circuit()

    machine.restore(kept, 0.0, 90_000.0)

    assert "closed" == machine.state(0.0)
    assert ["RestoreIgnored"] == [
        type(event).__name__ for event in told if not isinstance(event, events.BreakerChanged)
    ]


def test_q31_two_isolations_end_one_by_one_and_lead_to_a_probe() -> None:
    machine = circuit()
    first, second = machine.isolate("maintenance", 600, 0.0), machine.isolate("incident 7", 600, 0.0)
    first.release(1.0)
    first.release(1.0)
    assert "isolated" == machine.state(1.0)

    second.release(2.0)

    assert "half_open" == machine.state(2.0)
    with pytest.raises(PolicyConfigError, match="reason"):
        machine.isolate("", None, 3.0)


def test_q31_observe_reports_the_first_opening_that_enforce_makes_and_rejects_nothing() -> None:
    trace = [FAILED if number % 3 else SUCCESS for number in range(200)]
    found = {}
    for mode in ("enforce", "observe"):
        machine = circuit(Breaker(Rate(0.5, calls_min=20), mode=mode))
        changes: list[events.BreakerChanged] = []
        machine.watch(changes.append)
        rejected = 0
        for number, verdict in enumerate(trace):
            try:
                call(machine, number / 10, verdict)
            except BreakerOpen:
                rejected += 1
            if changes and mode not in found:
                found[mode] = (number, changes[0].new)
        assert (rejected == 0) == (mode == "observe")
        assert (mode == "observe") == changes[0].observed

    assert found["enforce"] == found["observe"]


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


def test_open_times_grow_up_to_the_maximum_and_are_forgotten_after_it() -> None:
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


def test_after_closing_the_admitted_share_grows_by_count_not_by_chance() -> None:
    """A backend that has just come back dies under full load."""
    machine = opened(ramp_seconds=10, probe_successes=1)
    call(machine, 5.0)
    admitted = []
    for start in (5.0, 10.0, 15.0):
        count = 0
        for _ in range(100):
            try:
                call(machine, start)
                count += 1
            except BreakerOpen:
                continue
        admitted.append(count)

    assert [20, 60, 100] == [pytest.approx(count, abs=1) for count in admitted]


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
    other.restore(kept, 50.0, 1_010.0)

    assert 3 == other.round
    assert [("maintenance", 130.0)] == [(one.reason, one.until) for one in other._isolations]
    assert 80.0 == pytest.approx(other.retry_after(50.0))
    assert "isolated" == other.state(59.9)
    other._isolations[0].release(60.0)
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


def test_a_passing_health_check_probes_at_once_and_only_when_open() -> None:
    """Recovery is not delayed by a long reset (the database of an order service is back in 5 s, not in 20)."""
    machine = opened(open_seconds=3600)
    machine.probe_now("ping", 1.0)
    assert "half_open" == machine.state(1.0)

    closed = circuit()
    closed.probe_now("ping", 1.0)

    assert ("closed", 1) == (closed.state(1.0), closed.epoch)


class TimeWindowModel(RuleBasedStateMachine):
    """Against the list of everything: a verdict counts for at least 0.9 of the window and never after it."""

    def __init__(self) -> None:
        super().__init__()
        self.window = TimeWindow(10.0)
        self.now = 0.0
        self.all: list[tuple[float, bool]] = []

    @rule(failed=st.booleans())
    def add(self, failed: bool) -> None:
        self.window.add(failed, self.now)
        self.all.append((self.now, failed))

    @rule(seconds=st.floats(0, 15))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.window.expire(self.now)

    @rule(back=st.floats(0, 5))
    def read_an_older_time(self, back: float) -> None:
        self.window.expire(self.now - back)

    @invariant()
    def counts_what_is_young_and_nothing_old(self) -> None:
        sure = [failed for at, failed in self.all if self.now - at < 9.0 - 1e-6]
        may = [failed for at, failed in self.all if self.now - at <= 10.0 + 1e-6]
        assert len(sure) <= self.window.total <= len(may)
        assert sum(sure) <= self.window.failures <= sum(may)


class CountWindowModel(RuleBasedStateMachine):
    """Against the last five of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.window = CountWindow(5)
        self.all: list[bool] = []

    @rule(failed=st.booleans())
    def add(self, failed: bool) -> None:
        self.window.add(failed, 0.0)
        self.all.append(failed)

    @rule(size=st.integers(1, 9))
    def resize(self, size: int) -> None:
        self.window = self.window.resized(size)
        self.all = self.all[-min(len(self.all[-len(self.window._ring) :]), size) :] if self.all else []
        self.all = self.all[-self.window.total :] if self.window.total else []

    @invariant()
    def sums_are_those_of_the_last(self) -> None:
        last = self.all[-len(self.window._ring) :]
        assert (len(last), sum(last)) == (self.window.total, self.window.failures)


class BreakerModel(RuleBasedStateMachine):
    """Against a reference of a dozen lines: consecutive failures, growing open time, one probe with a lease."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = circuit(
            Breaker(
                Consecutive(3),
                open_seconds=5,
                open_jitter=0,
                open_seconds_max=20,
                probe_successes=2,
                probe_lease_seconds=7,
            )
        )
        self.now = 1.0
        self.state, self.streak, self.round, self.until, self.good = "closed", 0, 0, 0.0, 0
        self.closed_at = 0.0
        self.lease: float | None = None
        self.permits: list[tuple[object, str, int]] = []
        self.generation = 0

    def _to(self, state: str) -> None:
        self.state, self.streak, self.good, self.lease = state, 0, 0, None
        self.generation += 1

    def _open(self) -> None:
        self.until = self.now + min(20.0, 5.0 * 2**self.round)
        self._to("open")

    def _catch_up(self) -> None:
        if self.state == "open" and self.now >= self.until:
            self._to("half_open")
        elif self.state == "half_open" and self.lease is not None and self.lease <= self.now:
            self.round += 1
            self._open()

    @rule()
    def enter(self) -> None:
        self._catch_up()
        expected = self.state == "closed" or (self.state == "half_open" and self.lease is None)
        try:
            permit = self.machine.enter(Call(), self.now)
        except BreakerOpen as error:
            self._refused(expected, error)
            return
        assert expected
        if self.state == "half_open":
            self.lease = self.now + 7
        self.permits.append((permit, self.state, self.generation))

    @staticmethod
    def _refused(expected: bool, error: BreakerOpen) -> None:
        assert not expected
        assert error.retry_after_seconds > 0

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), verdict=st.sampled_from([SUCCESS, FAILED, NEUTRAL]))
    def leave(self, data: Any, verdict: Any) -> None:
        permit, state, generation = self.permits.pop(data.draw(st.integers(0, len(self.permits) - 1)))
        self._catch_up()
        self.machine.leave(permit, Call(), verdict, self.now)
        if generation != self.generation:
            return
        if state == "half_open":
            self.lease = None
            if verdict is SUCCESS:
                self.good += 1
                if self.good == 2:
                    self.closed_at = self.now
                    self._to("closed")
            elif verdict is FAILED:
                self.round += 1
                self._open()
        elif verdict is SUCCESS:
            self.streak = 0
        elif verdict is FAILED:
            self.streak += 1
            if self.streak == 3:
                self.round = 0 if self.now - self.closed_at >= 20.0 else self.round
                self._open()

    @rule(seconds=st.sampled_from([0.5, 3.0, 5.0, 7.0, 25.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def reset(self) -> None:
        self._catch_up()
        self.machine.reset("by hand", self.now)
        self.round, self.closed_at = 0, self.now
        self._to("closed")

    @invariant()
    def the_state_is_the_references(self) -> None:
        self._catch_up()
        assert self.state == self.machine.state(self.now)
        assert self.round == self.machine.round or self.state == "closed"


_DOSE = settings(
    max_examples=examples(500), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTimeWindow = TimeWindowModel.TestCase
TestCountWindow = CountWindowModel.TestCase
TestBreaker = BreakerModel.TestCase
for _case in (TestTimeWindow, TestCountWindow, TestBreaker):
    _case.settings = _DOSE
