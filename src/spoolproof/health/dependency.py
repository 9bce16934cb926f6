"""The status of one dependency, from how calls to it end. Pure: time is passed in, nothing is asked.

::

    unknown ──first answer──▶ healthy ──2 evaluations──▶ degraded ──2 evaluations──▶ unhealthy
                                 ▲                        │     ▲                        │
                                 └── 30 s below the lines ┘     └─ 3 successes in a row ─┘
    any ──connection lost, breaker open──▶ unhealthy (at once)      any ──a minute without a call──▶ unknown

Single calls turn nothing. What makes it worse must hold at two evaluations, 5 s apart; what makes it better is quick
out of unhealthy, because traffic must return, and slow into healthy, because half mended is not well. With its return
from unhealthy the window begins anew: what is in it is of the outage.

Counts come as totals between two looks, so the order of calls inside one is not known. With `s` successes and `f`
failures at least `s // (f + 1)` successes were in a row, and that much is believed. Three in a row in one look are so
an error ratio below 0.25, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from spoolproof.ports.health import Status

SLOTS = 6
SLOT_SECONDS = 10.0
WINDOW_SECONDS = SLOTS * SLOT_SECONDS
"""A minute: long enough for ten calls of a quiet service, short enough to forget."""
CALLS_MIN = 10
"""Below that a ratio says nothing."""
FAILURES = 5
"""In a row, which say something also when calls are few."""
SUCCESSES = 3
"""In a row, after which traffic may return."""
DEGRADED_RATIO = 0.10
UNHEALTHY_RATIO = 0.50
"""A breaker's ratio, so that both agree."""
CLEAR_RATIO = 0.05
CLEAR_SHARE = 0.8
"""Of the response time from which a dependency is degraded."""
CLEAR_SECONDS = 30.0
"""Below the lines: what is half mended is not called healthy."""
EVALUATE_SECONDS = 5.0
PROBE_SECONDS = 10.0
"""How often a probe asks while calls are too few, ± 10 %."""
PROBE_SOON_SECONDS = 1.0
"""The same while it is unhealthy or its last answer was none: its return is seen within 4 s."""
ANSWER_SECONDS_MAX = 1.0
KEYS_MAX = 10_000
"""Keys of a policy whose counts are remembered from one look to the next."""
SAMPLES = 32
"""Calls whose time is taken between two looks: a few hundred a minute, whatever the traffic."""

_RANK = {Status.UNKNOWN: 0, Status.HEALTHY: 0, Status.DEGRADED: 1, Status.UNHEALTHY: 2}


@dataclass(slots=True)
class _Slot:
    number: int
    successes: int = 0
    failures: int = 0
    seconds: list[float] = field(default_factory=list)


class Window:
    """What happened in the last minute, in six slots of ten seconds."""

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque(maxlen=SLOTS)

    def add(self, successes: int, failures: int, seconds: Iterable[float], now: float) -> None:
        """Count calls that ended just now, and how long some of them took."""
        number = int(now / SLOT_SECONDS)
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(_Slot(number))
        slot = self._slots[-1]
        slot.successes += successes
        slot.failures += failures
        slot.seconds += seconds

    def expire(self, now: float) -> None:
        """Forget what is older."""
        oldest = int(now / SLOT_SECONDS) - SLOTS + 1
        while self._slots and self._slots[0].number < oldest:
            self._slots.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()

    @property
    def failures(self) -> int:
        """How many calls failed."""
        return sum(slot.failures for slot in self._slots)

    @property
    def calls(self) -> int:
        """How many calls ended well or badly."""
        return sum(slot.successes for slot in self._slots) + self.failures

    def percentiles(self) -> tuple[float, float] | None:
        """Return the 50th and 95th of the times that were taken; None for fewer than ten."""
        seconds = sorted(one for slot in self._slots for one in slot.seconds)
        if len(seconds) < CALLS_MIN:
            return None
        return seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.95)]


class DependencyStatus:
    """One dependency. Told of calls with `note`, of what is certain with `lost` and `back`; `evaluate` every 5 s."""

    def __init__(self, now: float, response_seconds: float) -> None:
        """response_seconds: of the 95th percentile, from which on it is degraded."""
        self._response_seconds = response_seconds
        self._window = Window()
        self._heard_at = now
        self._worse: Status | None = None  # what the evaluation before found, if that was worse than the status
        self._clear_since: float | None = None
        self._reason = ""
        self._lost_reason: str | None = None
        self._success_run = self._failure_run = 0
        self.status = Status.UNKNOWN
        self.reason: str | None = None

    # --- what is told ------------------------------------------------------------------------------------------------

    def note(self, successes: int, failures: int, seconds: Iterable[float], now: float) -> None:
        """Take in how many calls or probes have ended since the last look."""
        if not successes and not failures:
            return
        self._window.expire(now)
        self._window.add(successes, failures, seconds, now)
        self._heard_at = now
        self._success_run = successes // (failures + 1) if failures else self._success_run + successes
        self._failure_run = failures // (successes + 1) if successes else self._failure_run + failures
        self._try_return(now)

    def lost(self, reason: str, now: float) -> None:
        """Be unhealthy at once, and until `back`: the connection is lost, or the breaker refuses calls."""
        self._lost_reason = reason
        self._heard_at = now
        self._success_run = 0
        self._turn(Status.UNHEALTHY, reason)

    def back(self, now: float) -> None:
        """Let successes lead out of unhealthy: it may be there again."""
        if self._lost_reason is not None:
            self._lost_reason = None
            self._heard_at = now
            self._try_return(now)

    @property
    def is_lost(self) -> bool:
        """Whether something holds it unhealthy, whatever calls say."""
        return self._lost_reason is not None

    @property
    def wants_back(self) -> bool:
        """Whether it answers, and only what holds it unhealthy keeps it so."""
        return self.is_lost and self._success_run >= SUCCESSES

    # --- what follows ------------------------------------------------------------------------------------------------

    def evaluate(self, now: float) -> None:
        """Decide, every 5 s."""
        self._window.expire(now)
        if self.is_lost:
            return
        if now - self._heard_at >= WINDOW_SECONDS:
            self._turn(Status.UNKNOWN, None)
            return
        found = self._found()
        self._note_clear(now)
        if _RANK[found] > _RANK[self.status]:
            if self._worse is None:
                self._worse = found
                return
            milder = min(self._worse, found, key=_RANK.__getitem__)
            self._turn(milder, self._reason)
            self._worse = found if _RANK[found] > _RANK[milder] else None
            return
        self._worse = None
        if self._is_better(now):
            self._turn(Status.HEALTHY, None)

    def _is_better(self, now: float) -> bool:
        if self.status is Status.UNKNOWN:
            return self._window.calls > self._window.failures
        return self.status is Status.DEGRADED and self._is_clear_for(CLEAR_SECONDS, now)

    @property
    def is_thin(self) -> bool:
        """Whether there are too few calls to go by, so that a probe should ask."""
        return self._window.calls < CALLS_MIN

    @property
    def is_in_doubt(self) -> bool:
        """Whether to look and probe soon: it is unhealthy, or the last thing heard is a failure of few."""
        return self.status is Status.UNHEALTHY or (self._failure_run > 0 and self.is_thin)

    @property
    def error_ratio(self) -> float | None:
        """Failures of all calls in the window; None without any."""
        return self._window.failures / self._window.calls if self._window.calls else None

    def percentiles(self) -> tuple[float, float] | None:
        """Return the median and the 95th percentile of times in seconds; None while few were taken."""
        return self._window.percentiles()

    def _found(self) -> Status:
        """Return what the window says now, by the lines at which it becomes worse."""
        calls, failures = self._window.calls, self._window.failures
        if calls < CALLS_MIN:
            if self._failure_run >= FAILURES:
                self._reason = f"{self._failure_run} failures in a row"
                return Status.UNHEALTHY
        elif failures >= DEGRADED_RATIO * calls:
            self._reason = f"{failures} of {calls} calls failed within a minute"
            is_half = failures >= UNHEALTHY_RATIO * calls
            return Status.UNHEALTHY if is_half else Status.DEGRADED
        found = self._window.percentiles()
        if found is not None and found[1] >= self._response_seconds:
            self._reason = f"one call of twenty takes {found[1]:.3g} s or more"
            return Status.DEGRADED
        return Status.HEALTHY

    def _note_clear(self, now: float) -> None:
        """Note since when everything is below the lines at which it counts as over."""
        calls, failures = self._window.calls, self._window.failures
        is_thin = calls < CALLS_MIN
        is_clear = self._failure_run == 0 if is_thin else failures < CLEAR_RATIO * calls
        found = self._window.percentiles()
        if found is not None and found[1] >= CLEAR_SHARE * self._response_seconds:
            is_clear = False
        if not is_clear:
            self._clear_since = None
        elif self._clear_since is None:
            self._clear_since = now

    def _is_clear_for(self, seconds: float, now: float) -> bool:
        return self._clear_since is not None and now - self._clear_since >= seconds

    def _try_return(self, now: float) -> None:
        is_enough = self._success_run >= SUCCESSES
        if self.status is Status.UNHEALTHY and is_enough and not self.is_lost:
            self._window.clear()
            self._clear_since = now
            self._turn(Status.DEGRADED, "it has just come back")

    def _turn(self, status: Status, reason: str | None) -> None:
        self.status, self.reason = status, reason
        self._worse = None
        if status is Status.UNHEALTHY:
            self._success_run = 0
        elif status is Status.UNKNOWN:
            self._success_run = self._failure_run = 0
            self._clear_since = None
