"""How many calls ended well and badly of late: by time, or by number. Nothing here reads a clock or takes a lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BUCKETS = 10


class TimeWindow:
    """Counts over the last `seconds`, in ten buckets: a verdict counts for at least 0.9 of the window, never after it.

    total, failures: running sums. A reading before the last one means that no time has passed.
    """

    __slots__ = ("_before", "_failures", "_number", "_span", "_totals", "ends", "failures", "total")

    def __init__(self, seconds: float) -> None:
        self._span = seconds / BUCKETS
        self._number = 0
        self.ends = self._span
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._totals = [0] * BUCKETS
        self._failures = [0] * BUCKETS
        self._before = 0  # of total, what is in buckets; the rest is of the current one
        self.total = 0
        self.failures = 0

    def add(self, is_failure: bool, now: float) -> None:
        """Count one verdict."""
        if now >= self.ends:
            self.expire(now)
        self.total += 1
        if is_failure:
            self._failures[self._number % BUCKETS] += 1
            self.failures += 1

    def expire(self, now: float) -> None:
        """Drop what is too old."""
        number = int(now / self._span)
        if number <= self._number:
            return
        self._close_bucket()
        for gone in range(self._number + 1, min(number, self._number + BUCKETS) + 1):
            index = gone % BUCKETS
            self.total -= self._totals[index]
            self._before -= self._totals[index]
            self.failures -= self._failures[index]
            self._totals[index] = self._failures[index] = 0
        self._number = number
        self.ends = (number + 1) * self._span

    def _close_bucket(self) -> None:
        # the current bucket is counted only here: one addition less for every call
        self._totals[self._number % BUCKETS] += self.total - self._before
        self._before = self.total

    def resized(self, seconds: float, now: float) -> TimeWindow:
        """Return a window of another length with what still belongs in it; this one if the length is the same."""
        if seconds / BUCKETS == self._span:
            return self
        now = max(now, self._number * self._span)  # verdicts that came since are not from the past
        self.expire(now)
        self._close_bucket()
        other = TimeWindow(seconds)
        other.expire(now)
        for back in range(BUCKETS - 1, -1, -1):
            number = self._number - back
            index = number % BUCKETS
            target = min(int((number + 0.5) * self._span / other._span), other._number)
            if number >= 0 and target > other._number - BUCKETS:
                other._totals[target % BUCKETS] += self._totals[index]
                other._failures[target % BUCKETS] += self._failures[index]
                other.total += self._totals[index]
                other._before += self._totals[index]
                other.failures += self._failures[index]
        return other


class CountWindow:
    """Counts over the last `calls` verdicts: a ring with running sums."""

    __slots__ = ("_ring", "_used", "failures")

    def __init__(self, calls: int) -> None:
        self._ring = bytearray(calls)
        self._used = 0
        self.failures = 0

    @property
    def total(self) -> int:
        """How many verdicts there are, at most the size."""
        return min(self._used, len(self._ring))

    def clear(self) -> None:
        """Forget everything."""
        self._ring = bytearray(len(self._ring))
        self._used = 0
        self.failures = 0

    def add(self, is_failure: bool, now: float) -> None:
        """Count one verdict in the place of the oldest."""
        index = self._used % len(self._ring)
        self.failures += is_failure - self._ring[index]
        self._ring[index] = is_failure
        self._used += 1

    def expire(self, now: float) -> None:
        """Nothing: calls do not age."""

    def resized(self, calls: int) -> CountWindow:
        """Return a window of another size with the latest verdicts; this one if the size is the same."""
        size = len(self._ring)
        if calls == size:
            return self
        other = CountWindow(calls)
        kept = min(self.total, calls)
        for used in range(self._used - kept, self._used):
            other.add(bool(self._ring[used % size]), 0.0)
        return other


Window = TimeWindow | CountWindow


def is_reached(window: Window | None, rate: float, calls_min: int, now: float) -> bool:
    """Whether the failures in a window are at least this share of at least so many calls."""
    if window is None:
        return False
    window.expire(now)
    return window.total >= calls_min and window.failures >= rate * window.total


def window_of(window: Window | None, settings: Mapping[str, Any], now: float) -> Window:
    """Return the window these settings of a Rate ask for, with what `window` still has of use."""
    calls = settings.get("window_calls")
    if calls is not None:
        return window.resized(calls) if isinstance(window, CountWindow) else CountWindow(calls)
    seconds = settings["window_seconds"]
    return window.resized(seconds, now) if isinstance(window, TimeWindow) else TimeWindow(seconds)
