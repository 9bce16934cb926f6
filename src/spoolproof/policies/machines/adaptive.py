"""Finds how many calls at once a dependency takes, from its latency: a gradient on the round-trip time.

Per sample window: short = its 90th percentile; base = the least short of the last 120 windows; g = clamp(1.2 × base ÷
short, 0.5, 1); limit ← 0.8 × limit + 0.2 × (g × limit + √limit). An overload signal in the window: limit × 0.9 instead.
Every 60th window runs at half the limit to measure base again, and changes nothing else: a moving average as base
follows the queue it causes and runs away to the maximum. Half of a limit in use says nothing about the other half.
Source of the idea: the gradient limit of Netflix's concurrency-limits.
"""

from __future__ import annotations

import threading
from collections import deque
from math import sqrt

from spoolproof.policies import events

WINDOW_SECONDS_MIN = 1.0
SAMPLES_MIN = 50
DISCARD_SECONDS = 30.0
BASE_WINDOWS = 120
PROBE_EVERY = 60
_SAMPLES_MAX = 1000  #: the latest of a window; enough for a percentile
_PERCENTILE = 0.9
_TOLERANCE = 1.2
_SHARE_OF_NEW = 0.2
_OVERLOAD_FACTOR = 0.9


class AdaptiveLimit:
    """The limit of one bulkhead. Thread-safe. limit: how many calls may run now."""

    __slots__ = (
        "_bases", "_is_overloaded", "_is_probing", "_key", "_limit", "_lock", "_max", "_min", "_name", "_peak",
        "_samples", "_signals", "_started_at", "_windows", "limit",
    )  # fmt: skip

    def __init__(
        self, name: str, key: str | None, *, limit_initial: int = 20, limit_min: int = 1, limit_max: int = 200
    ) -> None:
        self._name = name
        self._key = key
        self._lock = threading.Lock()
        self._bases: deque[float] = deque(maxlen=BASE_WINDOWS)
        self._samples: list[float] = []
        self._started_at: float | None = None  # of the window; None before the first sample
        self._signals = 0
        self._peak = 0
        self._windows = 0
        self._is_probing = False
        self._is_overloaded = False
        self._min = limit_min
        self._max = limit_max
        self._set(limit_initial)

    def configure(self, *, limit_initial: int = 20, limit_min: int = 1, limit_max: int = 200) -> None:
        """Change the bounds; where the limit has moved to stays, as far as they allow. limit_initial is past."""
        with self._lock:
            self._min = limit_min
            self._max = limit_max
            self._set(self._limit)

    def sample(self, seconds: float, in_flight: int, now: float) -> None:
        """Take the latency of a success. in_flight: calls that ran when it ended, itself included."""
        self._take(seconds, in_flight, now)

    def overload(self, in_flight: int, now: float) -> None:
        """Take a sign that the dependency has too much: it said so, or did not answer in time."""
        self._take(None, in_flight, now)

    def _take(self, seconds: float | None, in_flight: int, now: float) -> None:
        if not self._lock.acquire(blocking=False):
            return  # two threads at once: one sample less changes nothing, and a finaliser inside ours cannot wait
        try:
            old = int(self._limit)
            self._note(seconds, in_flight, now)
            new = int(self._limit)
        finally:
            self._lock.release()
        if old != new and events.listeners:
            events.emit(events.LimitChanged(self._name, self._key, old=old, new=new))

    def _note(self, seconds: float | None, in_flight: int, now: float) -> None:
        started_at = self._started_at
        if started_at is None or now - started_at >= DISCARD_SECONDS:
            self._discard_window(now)
            started_at = now
        if seconds is None:
            self._is_overloaded = True
        elif self._is_probing and now - seconds < started_at:
            return  # it waited in the queue of the full limit; base would be measured with it
        elif len(self._samples) < _SAMPLES_MAX:
            self._samples.append(seconds)
        else:
            self._samples[self._signals % _SAMPLES_MAX] = seconds
        self._signals += 1
        self._peak = max(self._peak, in_flight)
        if self._signals >= SAMPLES_MIN and now - started_at >= WINDOW_SECONDS_MIN:
            self._close_window(now)

    def _close_window(self, now: float) -> None:
        if self._samples:
            short = sorted(self._samples)[int(len(self._samples) * _PERCENTILE)]
            self._bases.append(short)
            if not self._is_probing and not self._is_overloaded and self._is_used():
                gradient = min(1.0, max(0.5, _TOLERANCE * min(self._bases) / short)) if short > 0 else 1.0
                aim = gradient * self._limit + sqrt(self._limit)
                self._set((1 - _SHARE_OF_NEW) * self._limit + _SHARE_OF_NEW * aim)
        if self._is_overloaded and not self._is_probing and self._is_used():
            self._set(self._limit * _OVERLOAD_FACTOR)
        self._windows += 1
        self._is_probing = self._windows % PROBE_EVERY == 0
        self._open_window(now)

    def _discard_window(self, now: float) -> None:
        """Too little came to say anything about latency; an overload needs no percentile."""
        if self._is_overloaded and not self._is_probing and self._is_used():
            self._set(self._limit * _OVERLOAD_FACTOR)
        if self._is_probing:
            self._windows += 1
            self._is_probing = False
        self._open_window(now)

    def _is_used(self) -> bool:
        return self._peak >= self._limit / 2

    def _open_window(self, now: float) -> None:
        self._started_at = now
        self._samples = []
        self._signals = 0
        self._peak = 0
        self._is_overloaded = False
        self._show()

    def _set(self, limit: float) -> None:
        self._limit = min(float(self._max), max(float(self._min), limit))
        self._show()

    def _show(self) -> None:
        limit = self._limit / 2 if self._is_probing else self._limit
        self.limit = max(self._min, int(limit))
