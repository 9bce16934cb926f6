"""The only door to time.

`now()` is for storing (wall clock, UTC); `monotonic()` is for measuring and for self-fencing, and counts the time
a machine was suspended: a lease kept on a clock that stops in sleep would be believed after it ran out.

Nothing above this file reads time in any other way, so a simulator can put its own clock in its place. Leases and
schedules use the database's clock, not this one.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Both clocks and the sleep that goes with them."""

    def now(self) -> datetime:
        """Return the wall-clock time, timezone-aware UTC, for storing."""

    def monotonic(self) -> float:
        """Return seconds that never go back and include suspend, for measuring."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` (0 or more) of this clock."""


_MONOTONIC_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since boot, suspend included where the platform offers it (Linux does)."""
        return time.clock_gettime(_MONOTONIC_CLOCK)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)


class Stopwatch:
    """Seconds since it was made, for durations in logs and metrics."""

    __slots__ = ("_clock", "_started")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()

    def seconds(self) -> float:
        """Return the seconds since it was made."""
        return self._clock.monotonic() - self._started
