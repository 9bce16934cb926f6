"""What once survived `tests/mutation.py` of the circuit: what it says, and who is watched, and when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spoolproof.backoff import seeded_random
from spoolproof.errors import PolicyConfigError
from spoolproof.policies import Breaker, Consecutive, Slow, events
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import Kind, verdict_of
from spoolproof.policies.machines.admission import Permit
from spoolproof.policies.machines.circuit import Circuit

from .breakers import FAILED, NEUTRAL, call, changes_of, circuit, fail, opened, rejected, reload, resolve
from .waiting import wait_blocking

# --- what it says ----------------------------------------------------------------------------------------------------


def keyed(breaker: Breaker) -> Circuit:
    """Return the machine of one key."""
    return Circuit("psp", "eu", random=seeded_random(1), **resolve(breaker))


@pytest.mark.parametrize(("error_text", "expected"), [("", ""), ("Busy: later", ": Busy: later")])
def test_a_reason_ends_with_the_error_if_that_has_a_text(error_text: str, expected: str) -> None:
    """An error may have no text; a colon with nothing behind it looks like a cut message."""
    machine = circuit(Breaker(Consecutive(1), open_jitter=0, open_seconds=5))
    changes = changes_of(machine)
    verdict = verdict_of(Kind.TRANSIENT, reason=error_text)

    call(machine, 0.0, verdict)
    call(machine, 5.0, verdict)

    reasons = [f"too many failures{expected}", "time to probe", f"a probe failed{expected}"]
    assert reasons == [change.reason for change in changes]


def test_a_failure_that_is_told_without_a_text_has_none() -> None:
    machine = circuit(Breaker(Consecutive(1)))

    machine.conclude(machine.enter(Call(), 0.0), True, 0.0)

    error = rejected(machine, 0.0)
    assert ("too many failures", "") == (error.reason, error.last_error_text)


def test_a_probe_that_hangs_and_one_that_succeeds_say_so() -> None:
    """Whoever reads the events of a night has no other trace of a probe that never came back."""
    machine = opened(probe_successes=1, probe_lease_seconds=2)
    changes = changes_of(machine)

    machine.enter(Call(), 5.0)
    assert "open" == machine.state(7.0)
    call(machine, 17.0)

    assert [
        ("half_open", "time to probe"),
        ("open", "a probe gave no answer within its lease"),
        ("half_open", "time to probe"),
        ("closed", "probes succeeded"),
    ] == [(change.new, change.reason) for change in changes]


def test_slow_calls_are_the_reason_where_they_open_it() -> None:
    machine = circuit(Breaker(Slow(0.5, slow_seconds=5, calls_min=1)))
    machine.enter(Call(), 0.0)

    assert "too many slow calls" == rejected(machine, 5.0).reason


def test_a_rejection_in_a_ramp_says_that_the_outage_is_over() -> None:
    """Its state is closed, so the reason is all there is to tell it from a mistake; also in a ramp of one second."""
    machine = opened(ramp_seconds=1, probe_successes=1)
    for _ in range(2):
        call(machine, 5.0)

    error = rejected(machine, 5.0)

    found = (error.state, error.reason, error.retry_after_seconds)
    assert ("closed", "ramping up after an outage", 0.1) == found


def test_where_slow_calls_count_a_failure_still_has_its_text_and_its_retry_after() -> None:
    """There a call has a permit of its own, and ends another way."""
    machine = circuit(Breaker(Consecutive(1) | Slow(0.5, slow_seconds=2), open_jitter=0))

    call(machine, 0.0, verdict_of(Kind.OVERLOADED, retry_after_seconds=30.0, reason="Busy: later"))

    error = rejected(machine, 1.0)
    found = (error.reason, error.retry_after_seconds, error.last_error_text)
    assert ("too many failures: Busy: later", 29.0, "Busy: later") == found


def test_an_isolation_of_a_breaker_that_never_failed_names_no_error() -> None:
    machine = circuit()
    machine.isolate("maintenance", 60, 0.0)

    assert "" == rejected(machine, 1.0).last_error_text


def test_a_refused_isolation_names_its_policy() -> None:
    """There may be twenty of them, and somebody isolates all in a loop."""
    with pytest.raises(PolicyConfigError, match="policy 'psp'") as caught:
        circuit().isolate("", 60, 0.0)

    assert "psp" == caught.value.policy


def test_every_event_of_a_keyed_breaker_names_policy_and_key(told: list[events.Event]) -> None:
    machine = keyed(Breaker(Consecutive(1)))

    fail(machine, 0.0)
    machine.restore({}, 1.0, 1_000.0)

    assert ["BreakerChanged", "RestoreIgnored"] == [type(event).__name__ for event in told]
    assert [("psp", "eu")] * 2 == [(event.policy, event.key) for event in told]


def test_the_call_that_finds_it_time_to_probe_tells_of_it_at_once() -> None:
    """A probe may take a minute, and those who wait for the news are not to wait for that."""
    machine = opened()
    changes = changes_of(machine)

    machine.enter(Call(), 5.0)

    assert ["half_open"] == [change.new for change in changes]


def test_what_a_watcher_raised_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is swallowed, so the log is where its owner finds it."""
    monkeypatch.setattr(events, "_logged_at", float("-inf"))
    machine = circuit(Breaker(Consecutive(1)))
    mistake = RuntimeError("Event loop is closed")

    def broken(_: events.BreakerChanged) -> None:
        raise mistake

    machine.watch(broken)
    fail(machine, 0.0)

    assert [mistake] == [record.exc_info[1] for record in caplog.records if record.exc_info]


# --- what it does ----------------------------------------------------------------------------------------------------


def test_a_call_from_before_an_outage_hides_none_that_became_slow_since() -> None:
    """Both are found in the same look; the old one alone means nothing."""
    rule = Consecutive(1) | Slow(1.0, slow_seconds=10, calls_min=1)
    machine = circuit(Breaker(rule, open_jitter=0, open_seconds=5, probe_successes=1))
    machine.enter(Call(), 0.0)
    fail(machine, 0.0)
    call(machine, 5.0)
    machine.enter(Call(), 6.0)

    assert "open" == machine.state(20.0)


def admit(machine: Circuit, call: Call, way: str) -> object:
    """Enter, or come to wait, in one of the ways there are."""
    if way == "enter":
        return machine.enter(call, call.now)
    if way == "thread":
        return wait_blocking(machine, call)
    with pytest.raises(StopIteration) as ended:
        machine.wait(call).send(None)  # type: ignore[attr-defined]
    return ended.value.value


def attempt(now: float) -> Call:
    """Return a call whose attempt has to wait for something of ours first."""
    one = Call()
    one.now, one.attempts = now, 1
    return one


WAYS = pytest.mark.parametrize("way", ["enter", "thread", "task"])


@WAYS
@pytest.mark.parametrize("is_probe", [False, True])
def test_an_attempt_is_slow_so_long_after_its_own_wait_whichever_way_it_came_in(way: str, is_probe: bool) -> None:
    """What it waits for a slot or a token is not the dependency's doing."""
    rule = Consecutive(1) | Slow(0.5, slow_seconds=2, calls_min=1)
    machine = circuit(Breaker(rule, open_jitter=0, open_seconds=5, probe_lease_seconds=60))
    if is_probe:
        fail(machine, 0.0)
    waiting = attempt(5.0)
    permit = admit(machine, waiting, way)
    before = machine.state(9.0)

    waiting.has_started, waiting.attempt_started_at = True, 9.0
    after = [machine.state(10.9), machine.state(11.0)]

    assert permit
    calm = "half_open" if is_probe else "closed"
    assert (calm, [calm, "open"]) == (before, after)


def test_one_that_waits_hides_no_slow_call_behind_it() -> None:
    machine = circuit(Breaker(Slow(0.5, slow_seconds=2, calls_min=1)))
    machine.enter(attempt(0.0), 0.0)
    machine.enter(Call(), 0.0)

    assert "open" == machine.state(2.0)


def test_without_a_call_a_permit_has_run_since_it_was_given() -> None:
    permit = Permit(1, 5.0, is_probe=False, lease_until=0.0)

    assert [False, True] == [permit.has_run(2.0, now) for now in (6.9, 7.0)]


class LookedAt(Call):
    """A call at whose sight the collector ends others, on the same thread."""

    attempts = 1
    ends: list[Callable[[], None]]

    @property
    def has_started(self) -> bool:  # type: ignore[override]
        while self.ends:
            self.ends.pop()()
        return True


def test_a_call_ended_by_the_collector_while_slow_ones_are_counted_is_counted_once() -> None:
    machine = circuit(Breaker(Slow(1.0, slow_seconds=2, calls_min=9)))
    first = LookedAt()
    first.ends = []
    machine.enter(first, 0.0)
    second = machine.enter(Call(), 0.0)
    first.ends.append(lambda: machine.leave(second, Call(), NEUTRAL, 2.0))

    assert "closed" == machine.state(2.0)

    counts = machine.tally.counts(2.0)
    assert (2, 2) == (counts["slow"], counts["slow_of"])


@WAYS
def test_what_began_while_it_was_off_counts_for_nothing(way: str) -> None:
    """Also when it ends after somebody has turned it on, and whatever the state was."""
    machine, outage = circuit(Breaker(Consecutive(1), mode="off")), opened(open_seconds=60)
    reload(outage, Breaker(Consecutive(1), mode="off"))
    permits = [admit(one, attempt(1.0), way) for one in (machine, outage)]

    for one, permit in zip((machine, outage), permits, strict=True):
        reload(one, Breaker(Consecutive(1)))
        one.leave(permit, Call(), FAILED, 2.0)

    assert ["closed", "open"] == [machine.state(2.0), outage.state(2.0)]
    assert [1, 0] == [machine.epoch, outage.round]


class Forbidden:
    """A lock that nobody may take."""

    def __enter__(self) -> None:
        raise AssertionError("locked")

    def __exit__(self, *_: object) -> None:
        raise AssertionError("locked")


def test_rejecting_and_reading_the_state_take_no_lock_where_time_brings_nothing_about() -> None:
    """In an outage thousands are rejected a second, by every thread there is."""
    open_, closed = opened(), circuit()
    open_.lock = closed.lock = Forbidden()  # type: ignore[assignment]

    assert 4.0 == rejected(open_, 1.0).retry_after_seconds
    assert "closed" == closed.state(1.0)


# --- what other processes tell ---------------------------------------------------------------------------------------


def known(machine: Circuit, now: float) -> list[tuple[str, str, float]]:
    return [(one.id, one.reason, one.until) for one in machine.isolations_known(now)]


def test_an_isolation_that_another_process_tells_of_is_made_once_and_lasts_as_long() -> None:
    """It is told again and again; an older reading of the clock is no reason to end it sooner."""
    machine = circuit()
    changes = changes_of(machine)

    for now in (1.0, 2.0):
        machine.isolate_alike("a", "maintenance", 60, now)
    machine.isolate_alike("b", "a drill", 30, 0.5)

    assert ["maintenance", "a drill"] == [change.reason for change in changes]
    assert [("a", "maintenance", 61.0), ("b", "a drill", 32.0)] == known(machine, 2.0)
    assert ["isolated", "half_open"] == [machine.state(60.9), machine.state(61.0)]
    assert [] == known(machine, 0.0)


def test_an_isolation_that_another_process_has_ended_ends_and_does_not_come_back() -> None:
    machine = circuit()
    changes = changes_of(machine)
    machine.isolate_alike("a", "maintenance", 60, 1.0)

    machine.release_alike("b", 2.0)
    before = machine.state(2.0)
    machine.release_alike("a", 1.5)
    machine.isolate_alike("a", "maintenance", 60, 3.0)

    assert ["isolated", "half_open"] == [before, machine.state(3.0)]
    assert ["isolated", "half_open"] == [change.new for change in changes]
    assert [("a", "maintenance", 2.0)] == known(machine, 3.0)


def test_a_reset_ends_what_other_processes_are_then_told_has_ended() -> None:
    machine = circuit()
    machine.isolate_alike("a", "maintenance", 60, 1.0)

    machine.reset("checked by hand", 2.0)

    assert [("a", "maintenance", 2.0)] == known(machine, 3.0)
