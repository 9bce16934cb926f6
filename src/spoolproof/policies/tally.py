"""What a breaker has seen since it closed, and whether that is too much by its rule. Used under the breaker's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from spoolproof.policies.breaker import DEFAULT_SHAPE, Shape, leaves
from spoolproof.policies.window import TimeWindow, Window, is_reached, window_of


class Tally:
    """Failures by rate and in a row, and slow calls, as far as the rule asks for them.

    consecutive: failures in a row. plain_window: where a success is counted if no more than that is needed; after its
    `ends` the long way is taken. counts_slow: whether slow calls matter.
    """

    __slots__ = ("_failed_at", "_rate", "_settings", "_shape", "_slow", "consecutive", "plain_window")

    def __init__(self) -> None:
        self.consecutive = 0
        self._shape: Shape = DEFAULT_SHAPE
        self._settings: Mapping[str, Any] = {}
        self._failed_at: deque[float] | None = None  # only where failures have to lie close together
        self._rate: Window | None = None
        self._slow: TimeWindow | None = None
        self.plain_window = TimeWindow(1.0)

    def configure(self, rule: Shape, settings: Mapping[str, Any], now: float) -> None:
        """Take over another rule; what was counted and still counts under it stays."""
        kinds = leaves(rule)
        self._shape = rule
        self._settings = settings
        self._rate = window_of(self._rate, settings, now) if "rate" in kinds else None
        self.plain_window = self._rate if isinstance(self._rate, TimeWindow) else TimeWindow(1.0)
        if self._rate is not self.plain_window:
            self.plain_window.ends = float("inf") if self._rate is None else float("-inf")
        if "slow" in kinds:
            seconds = settings["slow_window_seconds"]
            self._slow = TimeWindow(seconds) if self._slow is None else self._slow.resized(seconds, now)
        else:
            self._slow = None
        within = settings.get("within_seconds") if "consecutive" in kinds else None
        self._failed_at = deque(self._failed_at or (), maxlen=settings["consecutive"]) if within else None

    @property
    def slow_seconds(self) -> float | None:
        """From when on a call is slow; None if the rule does not ask."""
        return None if self._slow is None else self._settings["slow_seconds"]

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
            return is_reached(self._rate, settings["failure_rate"], settings["calls_min"], now)
        return is_reached(self._slow, settings["slow_rate"], settings["slow_calls_min"], now)

    def _is_streak(self, now: float) -> bool:
        most = self._settings["consecutive"]
        if self._failed_at is None or self.consecutive < most:
            return bool(self.consecutive >= most)
        if len(self._failed_at) < most:  # a reload asked for times, or for more of them, in the middle of a streak
            return False
        return bool(now - self._failed_at[-most] <= self._settings["within_seconds"])
