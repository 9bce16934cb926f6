"""How much more a dependency is asked for: what retries and hedges may add to its load, and when it is left alone.

The budget, per policy name, over ten one-second buckets: retries ≤ ratio × calls + 10 × per-second minimum. Counted
when scheduled, not when run. Source of the idea: the retry budget of Finagle; the default ratio keeps the worst day at
a fifth more load. The cooldown: who answered "too many requests" is left alone for as long as it asked.
"""

from __future__ import annotations

import threading

from spoolproof.errors import RateLimited
from spoolproof.policies import events

BUCKETS = 10
_ROUNDING = 1e-9  #: a share of calls is a float: 0.29 × 100 is a little less than 29


class Budget:
    """Counts calls and retries of the last ten seconds. Thread-safe; time is passed in, in monotonic seconds."""

    __slots__ = ("_calls", "_ends", "_fresh", "_lock", "_per_second_min", "_ratio", "_retries", "_second")

    def __init__(self, budget_ratio: float = 0.2, budget_per_second_min: float = 1.0) -> None:
        self._lock = threading.RLock()  # a finaliser that makes a call may run in the middle of a step
        self._calls = [0] * BUCKETS
        self._retries = [0] * BUCKETS
        self._fresh = 0  # calls of this second, not yet in their bucket
        self._second = 0
        self._ends = 1
        self._ratio = budget_ratio
        self._per_second_min = budget_per_second_min

    def configure(self, *, budget_ratio: float, budget_per_second_min: float) -> None:
        """Change the bounds; what was counted stays."""
        self._ratio = budget_ratio
        self._per_second_min = budget_per_second_min

    def note_call(self, now: float) -> None:
        """Count a call, not its retries: in one step of the interpreter, and so without the lock."""
        if now >= self._ends:
            with self._lock:
                self._move(now)
        self._fresh += 1

    def spend(self, now: float) -> bool:
        """Count one retry if it is within the budget; False, and nothing counted, if it is not."""
        with self._lock:
            if now >= self._ends:
                self._move(now)
            if self._left() < 1 - _ROUNDING:
                return False
            self._retries[self._second % BUCKETS] += 1
            return True

    def available(self, now: float) -> float:
        """Return how many retries could be scheduled now."""
        with self._lock:
            if now >= self._ends:
                self._move(now)
            return max(0.0, self._left())

    def _left(self) -> float:
        return self._ratio * (sum(self._calls) + self._fresh) + BUCKETS * self._per_second_min - sum(self._retries)

    def _move(self, now: float) -> None:
        self._calls[self._second % BUCKETS] += self._fresh
        self._fresh = 0
        second = int(now)
        for gone in range(self._second + 1, min(second, self._second + BUCKETS) + 1):
            self._calls[gone % BUCKETS] = self._retries[gone % BUCKETS] = 0
        self._second = second
        self._ends = second + 1


class Cooldown:
    """One per policy and key. until: monotonic seconds, 0 when there is none; read it without the lock."""

    __slots__ = ("_key", "_lock", "_name", "_seconds", "cooldown_seconds_max", "until")

    def __init__(
        self, name: str, key: str | None, *, cooldown_seconds: float = 1.0, cooldown_seconds_max: float = 300.0
    ) -> None:
        self._name = name
        self._key = key
        self._lock = threading.RLock()
        self._seconds = cooldown_seconds
        self.cooldown_seconds_max = cooldown_seconds_max
        self.until = 0.0

    def configure(self, *, cooldown_seconds: float, cooldown_seconds_max: float) -> None:
        """Change the bounds; a cooldown that runs goes on."""
        self._seconds = cooldown_seconds
        self.cooldown_seconds_max = cooldown_seconds_max

    def start(self, now: float, retry_after_seconds: float | None) -> None:
        """Refuse attempts for what was asked, or for the default; never beyond the maximum, never shortened."""
        seconds = min(self._seconds if retry_after_seconds is None else retry_after_seconds, self.cooldown_seconds_max)
        with self._lock:
            is_new = now + seconds > self.until
            if is_new:
                self.until = now + seconds
        if is_new and events.listeners:
            events.emit(events.CooldownStarted(self._name, self._key, seconds=seconds))

    def check(self, now: float) -> None:
        """Raise RateLimited while it lasts."""
        left = self.until - now
        if left > 0:
            raise RateLimited(policy=self._name, retry_after_seconds=left, by="cooldown")
