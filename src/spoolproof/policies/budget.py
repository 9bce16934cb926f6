"""Bounds what retries and hedges may add to a dependency's load, per policy name.

Over ten one-second buckets: retries ≤ ratio × calls + 10 × per-second minimum. Counted when scheduled, not when run.
Source of the idea: the retry budget of Finagle; the default ratio keeps the worst day at a fifth more load.
"""

from __future__ import annotations

import threading

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
