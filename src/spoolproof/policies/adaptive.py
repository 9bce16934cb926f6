"""Finds how many calls at once a dependency takes, from its latency: a gradient on the round-trip time.

Per sample window: short = its 90th percentile; base = the least short of the last 120 windows; g = clamp(1.2 × base ÷
short, 0.5, 1); limit ← 0.8 × limit + 0.2 × (g × limit + √limit). An overload signal in the window: limit × 0.9 instead.
Every 60th window runs at half the limit to measure base again, and changes nothing else: a moving average as base
follows the queue it causes and runs away to the maximum. Source of the idea: the gradient limit of Netflix's
concurrency-limits."""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import ClassVar

from spoolproof.policies import events
from spoolproof.policies.part import Part

_WINDOW_SECONDS = 1.0
_SAMPLES_MIN = 50
_SAMPLES_MAX = 1000  #: enough for a percentile; more in a window are counted and not kept
_DISCARD_SECONDS = 30.0
_BASE_WINDOWS = 120
_PROBE_EVERY = 60
_PERCENTILE = 0.9
_TOLERANCE = 1.2


class Adaptive(Part):
    """A limit that moves: `Bulkhead(Adaptive())`. limit_initial (20), limit_min (1), limit_max (200): calls at once."""

    kind: ClassVar[str] = "adaptive"
    settings: ClassVar[tuple[str, ...]] = ("limit_initial", "limit_min", "limit_max")

    def __init__(
        self, *, limit_initial: int | None = None, limit_min: int | None = None, limit_max: int | None = None
    ) -> None:
        given = {"limit_initial": limit_initial, "limit_min": limit_min, "limit_max": limit_max}
        super().__init__(given)


class AdaptiveLimit:
    """The limit of one bulkhead. Not thread-safe: used under the bulkhead's lock."""

    __slots__ = (
        "_base",
        "_has_overload",
        "_is_probing",
        "_key",
        "_limit",
        "_max",
        "_min",
        "_name",
        "_peak",
        "_samples",
        "_signals",
        "_started",
        "_windows",
    )

    def __init__(self, name: str, key: str | None, *, limit_initial: int, limit_min: int, limit_max: int) -> None:
        self._name = name
        self._key = key
        self._min = limit_min
        self._max = limit_max
        self._limit = float(min(max(limit_initial, limit_min), limit_max))
        self._base: deque[float] = deque(maxlen=_BASE_WINDOWS)
        self._windows = 0
        self._is_probing = False
        self._started = 0.0
        self._peak = 0
        self._open_window(0.0)

    @property
    def limit(self) -> int:
        """How many calls may run now."""
        limit = self._limit / 2 if self._is_probing else self._limit
        return max(self._min, int(limit))

    def sample(self, seconds: float, running: int, now: float) -> tuple[float, float] | None:
        """Take the latency of a success; returns old and new limit if it moved."""
        if self._is_probing and now - seconds < self._started:
            return None  # it began before the limit was halved, and its latency is of the queue from then
        if len(self._samples) < _SAMPLES_MAX:
            self._samples.append(seconds)
        return self._note(running, now)

    def overload(self, running: int, now: float) -> tuple[float, float] | None:
        """Take a sign that the dependency has too much; returns old and new limit if it moved."""
        self._has_overload = True
        return self._note(running, now)

    def _note(self, running: int, now: float) -> tuple[float, float] | None:
        if self._started == 0.0:
            self._started = now
        self._signals += 1
        self._peak = max(self._peak, running)
        age = now - self._started
        if age < _WINDOW_SECONDS:
            return None
        if self._signals < _SAMPLES_MIN:
            if age < _DISCARD_SECONDS:
                return None
            old = self._limit
            if self._has_overload:
                self._set(self._limit * 0.9)
            self._open_window(now)
            return (old, self._limit) if old != self._limit else None
        return self._close_window(now)

    def _close_window(self, now: float) -> tuple[float, float] | None:
        old = self._limit
        short = _percentile(self._samples) if self._samples else None
        was_probing = self._is_probing
        self._windows += 1
        self._is_probing = self._windows % _PROBE_EVERY == 0
        if short is not None:
            self._base.append(short)
        if not was_probing and self._peak >= self._limit / 2:
            if self._has_overload:
                self._set(self._limit * 0.9)
            elif short is not None:
                gradient = min(1.0, max(0.5, _TOLERANCE * min(self._base) / max(short, 1e-9)))
                self._set(0.8 * self._limit + 0.2 * (gradient * self._limit + sqrt(self._limit)))
        self._open_window(now)
        return (old, self._limit) if old != self._limit else None

    def _set(self, limit: float) -> None:
        self._limit = min(float(self._max), max(float(self._min), limit))

    def _open_window(self, now: float) -> None:
        self._started = now
        self._samples: list[float] = []
        self._signals = 0
        self._peak = 0
        self._has_overload = False

    def announce(self, change: tuple[float, float]) -> None:
        """Tell of a move; called without the lock."""
        if events.listeners:
            events.emit(events.LimitChanged(policy=self._name, key=self._key, old=change[0], new=change[1]))


def _percentile(samples: list[float]) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * _PERCENTILE))]
