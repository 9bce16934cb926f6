"""The status of a dependency against a model that remembers every call, and the lines of its table."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoolproof.health.dependency import DependencyStatus
from spoolproof.ports.health import Status

TICK = 0.5
UNKNOWN, HEALTHY, DEGRADED, UNHEALTHY = Status.UNKNOWN, Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY
BADNESS = {UNKNOWN: 0, HEALTHY: 0, DEGRADED: 1, UNHEALTHY: 2}


@dataclass
class Model:
    """The table in words: it keeps all calls and all evaluations, and works everything out anew each time."""

    status: Status = UNKNOWN
    calls: list[tuple[float, bool, float]] = field(default_factory=list)
    window_from: int = 0  #: the first call that still counts
    streak_from: int = 0  #: the first call that counts for a return
    row_from: int = 0  #: the first call that counts for failures in a row
    heard_at: float = 0.0
    is_lost: bool = False
    found: list[Status] = field(default_factory=list)  #: by evaluation, since the last change
    clear: list[tuple[float, bool]] = field(default_factory=list)

    def call(self, at: float, ok: bool, seconds: float) -> None:
        self.calls.append((at, ok, seconds))
        self.heard_at = at
        self.come_back(at)

    def come_back(self, at: float) -> None:
        last = self.calls[self.streak_from :][-3:]
        if self.status is UNHEALTHY and not self.is_lost and len(last) == 3 and all(ok for _, ok, _ in last):
            self.turn(DEGRADED)
            self.window_from = len(self.calls)
            self.clear = [(at, True)]

    def lose(self, at: float) -> None:
        self.is_lost, self.heard_at, self.streak_from = True, at, len(self.calls)
        self.turn(UNHEALTHY)

    def regain(self, at: float) -> None:
        if self.is_lost:
            self.is_lost, self.heard_at = False, at
            self.come_back(at)

    def turn(self, status: Status) -> None:
        if status is UNHEALTHY:
            self.streak_from = len(self.calls)
        if status is UNKNOWN:
            self.row_from = self.streak_from = len(self.calls)
            self.clear = []
        self.status, self.found = status, []

    def evaluate(self, at: float) -> None:
        if self.is_lost:
            return
        if at - self.heard_at >= 60:
            self.turn(UNKNOWN)
            return
        window = [one for one in self.calls[self.window_from :] if one[0] // 10 > at // 10 - 6]
        failed = sum(not ok for _, ok, _ in window)
        row = 0
        for _, ok, _ in reversed(self.calls[self.row_from :]):
            if ok:
                break
            row += 1
        times = sorted(seconds for _, ok, seconds in window if ok)
        p95 = times[int(len(times) * 0.95)] if len(times) >= 10 else 0.0
        now = HEALTHY
        if (len(window) < 10 and row >= 5) or (len(window) >= 10 and failed / len(window) >= 0.5):
            now = UNHEALTHY
        elif (len(window) >= 10 and failed / len(window) >= 0.1) or p95 >= 1.0:
            now = DEGRADED
        is_clear = p95 < 0.8 and (row == 0 if len(window) < 10 else failed / len(window) < 0.05)
        self.clear.append((at, is_clear))
        self.found.append(now)
        last = self.found[-2:]
        if all(BADNESS[one] > BADNESS[self.status] for one in last) and len(last) == 2:
            self.turn(min(last, key=BADNESS.__getitem__))
            self.found = [now]
        elif BADNESS[now] <= BADNESS[self.status]:
            if self.status is UNKNOWN and len(window) > failed:
                self.turn(HEALTHY)
            elif self.status is DEGRADED:
                since = None
                for moment, one in reversed(self.clear):
                    if not one:
                        break
                    since = moment
                if since is not None and at - since >= 30:
                    self.turn(HEALTHY)


PATTERNS = {
    "nothing": "-",
    "well": "o",
    "seldom": "o-----",
    "failing": "x",
    "failing seldom": "x---------",
    "one of ten": "ooooxooooo",
    "one of thirty": "o" * 15 + "x" + "o" * 14,
    "half": "ox",
    "mostly": "oooxooxooo",
    "slow": "s",
    "rather slow": "r",
    "lost": "L",
    "found": "F",
}
phases = st.lists(st.tuples(st.sampled_from(sorted(PATTERNS)), st.integers(1, 90)), min_size=1, max_size=12)
SECONDS = {"o": 0.1, "x": 0.1, "s": 2.0, "r": 0.9}


@settings(max_examples=60, deadline=None)
@given(phases)
def test_it_is_what_a_model_says_that_remembers_everything(phases: list[tuple[str, int]]) -> None:
    """Hysteresis is a table with many corners; the code keeps six slots and three numbers, the model every call."""
    tested, model, now, tick = DependencyStatus(0.0, 1.0), Model(), 0.0, 0
    for name, ticks in phases:
        for step in range(ticks):
            tick += 1
            now = tick * TICK
            what = PATTERNS[name][step % len(PATTERNS[name])]
            if what == "L":
                tested.lost("lost", now)
                model.lose(now)
            elif what == "F":
                tested.back(now)
                model.regain(now)
            elif what != "-":
                is_well = what != "x"
                tested.note(int(is_well), int(not is_well), (SECONDS[what],) if is_well else (), now)
                model.call(now, is_well, SECONDS[what])
            if tick % 10 == 0:
                tested.evaluate(now)
                model.evaluate(now)
            assert model.status is tested.status, f"{name} at {now}"


def after(*spans: tuple[str, float]) -> DependencyStatus:
    """Return the status after spans of calls, two a second."""
    tested, tick = DependencyStatus(0.0, 1.0), 0
    for pattern, seconds in spans:
        for step in range(int(seconds / TICK)):
            tick += 1
            what = pattern[step % len(pattern)]
            if what != "-":
                is_well = what != "x"
                tested.note(int(is_well), int(not is_well), (SECONDS[what],) if is_well else (), tick * TICK)
            if tick % 10 == 0:
                tested.evaluate(tick * TICK)
    return tested


@pytest.mark.parametrize(
    ("spans", "status"),
    [
        ([("-", 60)], UNKNOWN),
        ([("o", 5)], HEALTHY),
        ([("o", 60), ("x", 4)], HEALTHY),  # one evaluation is not enough
        ([("o", 20), ("x", 30)], UNHEALTHY),
        ([("o", 20), ("x", 30), ("o", 1)], UNHEALTHY),
        ([("o", 20), ("x", 30), ("o", 1.5)], DEGRADED),  # three successes
        ([("o", 20), ("x", 30), ("o", 30)], DEGRADED),
        ([("o", 20), ("x", 30), ("o", 35)], HEALTHY),  # thirty seconds, at the next evaluation
        ([("o", 60), ("s", 30)], DEGRADED),
        ([("o", 60), ("s", 120)], DEGRADED),  # slowness alone never makes it unhealthy
        ([("o", 20), ("-", 60)], UNKNOWN),
        ([("x", 20), ("-", 65)], UNKNOWN),
    ],
)
def test_the_lines_of_the_table(spans: list[tuple[str, float]], status: Status) -> None:
    assert status is after(*spans).status


@pytest.mark.parametrize(
    ("successes", "failures", "returns"), [(3, 0, True), (2, 0, False), (9, 2, True), (8, 2, False)]
)
def test_of_calls_whose_order_is_unknown_only_what_is_certain_counts(
    successes: int, failures: int, returns: bool
) -> None:
    """A look tells how many calls ended, not in which order: nine and two have three in a row however they lie."""
    tested = after(("x", 40))
    assert UNHEALTHY is tested.status

    tested.note(successes, failures, (), 41.0)

    assert (DEGRADED if returns else UNHEALTHY) is tested.status
