"""The breaker's machine against a reference of a page, by random walks."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spoolproof.errors import BreakerOpen
from spoolproof.policies import Breaker, Consecutive, Rate
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS

from ..doses import MACHINE_EXAMPLES, MACHINE_SECONDS
from .breakers import FAILED, NEUTRAL, changes_of, circuit


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

    def _open(self, round_: int, at: float | None = None) -> None:
        self.round = round_
        self.until = (self.now if at is None else at) + min(20.0, 5.0 * 2.0**round_)
        self._to("open")

    def _catch_up(self) -> None:
        if self.state == "isolated":
            self.isolations = {one: until for one, until in self.isolations.items() if until > self.now}
            if not self.isolations:
                self._to("half_open")
        elif self.state == "half_open" and any(until <= self.now for until in self.leases.values()):
            self._open(self.round + 1, min(self.leases.values()))
        if self.state == "open" and self.now >= self.until:
            self._to("half_open")

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
        self.isolations = dict(zip(self.machine.isolations.active, self.isolations.values(), strict=True))
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
