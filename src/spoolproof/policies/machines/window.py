"""How many calls ended well and badly of late, by time or by number, and whether that is too much by a breaker's rule.

Nothing here reads a clock or takes a lock: it is used under that of the breaker."""

from __future__ import annotations

from collections import deque

from spoolproof.policies.parts.breaker import DEFAULT_SHAPE, Shape, leaves
from spoolproof.policies.parts.ranges import Settings

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


def is_reached(window: Window | None, rate: float | None, calls_min: int, now: float) -> bool:
    """Whether the failures in a window are at least this share of at least so many calls."""
    if window is None or rate is None:
        return False
    window.expire(now)
    return window.total >= calls_min and window.failures >= rate * window.total


def window_of(window: Window | None, settings: Settings, now: float) -> Window:
    """Return the window these settings of a Rate ask for, with what `window` still has of use."""
    calls = settings.window_calls
    if calls is not None:
        return window.resized(calls) if isinstance(window, CountWindow) else CountWindow(calls)
    seconds = settings.window_seconds
    return window.resized(seconds, now) if isinstance(window, TimeWindow) else TimeWindow(seconds)


class Tally:
    """Failures by rate and in a row, and slow calls, as far as the rule asks for them.

    consecutive: failures in a row. plain_window: where a success is counted if no more than that is needed; after its
    `ends` the long way is taken. counts_slow: whether slow calls matter.
    """

    __slots__ = ("_failed_at", "_rate", "_settings", "_shape", "_slow", "consecutive", "plain_window")

    def __init__(self) -> None:
        self.consecutive = 0
        self._shape: Shape = DEFAULT_SHAPE
        self._settings = Settings()
        self._failed_at: deque[float] | None = None  # only where failures have to lie close together
        self._rate: Window | None = None
        self._slow: TimeWindow | None = None
        self.plain_window = TimeWindow(1.0)

    def configure(self, rule: Shape, settings: Settings, now: float) -> None:
        """Take over another rule; what was counted and still counts under it stays."""
        kinds = leaves(rule)
        self._shape = rule
        self._settings = settings
        self._rate = window_of(self._rate, settings, now) if "rate" in kinds else None
        self.plain_window = self._rate if isinstance(self._rate, TimeWindow) else TimeWindow(1.0)
        if self._rate is not self.plain_window:
            self.plain_window.ends = float("inf") if self._rate is None else float("-inf")
        if "slow" in kinds:
            seconds = settings.slow_window_seconds
            self._slow = TimeWindow(seconds) if self._slow is None else self._slow.resized(seconds, now)
        else:
            self._slow = None
        within = settings.within_seconds if "consecutive" in kinds else None
        self._failed_at = deque(self._failed_at or (), maxlen=settings.consecutive) if within else None

    @property
    def slow_seconds(self) -> float | None:
        """From when on a call is slow; None if the rule does not ask."""
        return None if self._slow is None else self._settings.slow_seconds

    def add_success(self, now: float) -> None:
        """Count a success: `add` written out for what most calls are."""
        window = self.plain_window
        if now < window.ends:
            self.consecutive = 0
            window.total += 1
        else:
            self.add(False, now)

    def add(self, is_failure: bool, now: float) -> None:
        """Count one verdict."""
        if self._rate is not None:
            self._rate.add(is_failure, now)
        if not is_failure:
            self.consecutive = 0
            return
        self.consecutive += 1
        if self._failed_at is not None:
            self._failed_at.append(now)

    def add_speed(self, is_slow: bool, now: float) -> None:
        """Count one call as slow or not."""
        if self._slow is not None:
            self._slow.add(is_slow, now)

    def is_too_much(self, now: float) -> bool:
        """Whether the rule holds."""
        return self._holds(self._shape, now)

    def clear(self) -> None:
        """Forget everything."""
        self.consecutive = 0
        if self._failed_at is not None:
            self._failed_at.clear()
        for window in (self._rate, self._slow):
            if window is not None:
                window.clear()

    def counts(self, now: float = 0.0) -> dict[str, float]:
        """Return the numbers behind a decision, for people, as of now or of when they were last asked for."""
        counts: dict[str, float] = {"consecutive": self.consecutive}
        for name, window in (("failures", self._rate), ("slow", self._slow)):
            if window is not None:
                window.expire(now)
                counts[name] = window.failures
                counts[f"{name}_of"] = window.total
        return counts

    def _holds(self, shape: Shape, now: float) -> bool:
        if not isinstance(shape, str):
            found = (self._holds(part, now) for part in shape[1:])
            return any(found) if shape[0] == "any" else all(found)
        settings = self._settings
        if shape == "consecutive":
            return self._is_streak(now)
        if shape == "rate":
            return is_reached(self._rate, settings.failure_rate, settings.calls_min, now)
        return is_reached(self._slow, settings.slow_rate, settings.slow_calls_min, now)

    def _is_streak(self, now: float) -> bool:
        most, within = self._settings.consecutive, self._settings.within_seconds
        if self._failed_at is None or within is None or self.consecutive < most:
            return self.consecutive >= most
        if len(self._failed_at) < most:  # a reload asked for times, or for more of them, in the middle of a streak
            return False
        return now - self._failed_at[-most] <= within
