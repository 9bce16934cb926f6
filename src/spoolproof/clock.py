"""The only door to time.

`now()` is for storing (wall clock, UTC); `monotonic()` is for measuring and for self-fencing, and counts the time
a machine was suspended: a lease kept on a clock that stops in sleep would be believed after it ran out.

Nothing above this file reads time in any other way, so a simulator can put its own clock in its place. Leases and
schedules on PostgreSQL use the database's clock, not this one.

A service gets its clock passed in. Policies may be made at import, before any clock could be passed: they read
`AMBIENT`, which is the machine's clock unless a test has put another in its place with `use`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Protocol


class Timer(Protocol):
    """A callback that will be called."""

    def cancel(self) -> None:
        """Let it not be called. Does nothing when it was."""


class Clock(Protocol):
    """Both clocks, and the sleeps and timers that go with them."""

    def now(self) -> datetime:
        """Return the wall-clock time, timezone-aware UTC, for storing."""

    def monotonic(self) -> float:
        """Return seconds that never go back and include suspend, for measuring."""

    def boot_id(self) -> str:
        """Return the name of the machine's run for which `monotonic()` counts, the same in all processes; or ""."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` (0 or more) of this clock."""

    def sleep_blocking(self, seconds: float) -> None:
        """Block this thread for `seconds` (0 or more) of this clock."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the running event loop once `monotonic()` has reached `when`."""


_read_monotonic: Callable[[], float] = time.monotonic  # where there is no other, as on Windows
if hasattr(time, "clock_gettime"):
    _read_monotonic = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since boot, suspend included where the platform offers it (Linux does)."""
        return _read_monotonic()

    def boot_id(self) -> str:
        """Return Linux's name for it, elsewhere ""."""
        return _boot_id()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)

    def sleep_blocking(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Arm a timer of the running event loop."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.monotonic()), callback)


SYSTEM: Clock = SystemClock()

_replaced = 0  #: how many `use` blocks are open anywhere; while none is, nobody pays for the context variable
_clock: ContextVar[Clock] = ContextVar("spoolproof.clock", default=SYSTEM)


class AmbientClock:
    """Whatever clock is in force where it is asked."""

    def now(self) -> datetime:
        """Return the wall-clock time, UTC."""
        return _clock.get().now()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return _clock.get().monotonic() if _replaced else _read_monotonic()

    def boot_id(self) -> str:
        """Return the name of the machine's run."""
        return _clock.get().boot_id()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await _clock.get().sleep(seconds)

    def sleep_blocking(self, seconds: float) -> None:
        """Block this thread for `seconds`."""
        _clock.get().sleep_blocking(seconds)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once `monotonic()` has reached `when`."""
        if _replaced:
            return _clock.get().call_at(when, callback)
        loop = asyncio.get_running_loop()
        return loop.call_at(loop.time() + when - _read_monotonic(), callback)


AMBIENT: Clock = AmbientClock()


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Put `clock` in the place of the machine's, for `AMBIENT` in this context (and tasks and copies made in it)."""
    global _replaced
    _replaced += 1
    token = _clock.set(clock)
    try:
        yield
    finally:
        _replaced -= 1
        _clock.reset(token)


def is_replaced() -> bool:
    """Whether a test clock is in force here."""
    return _replaced > 0 and _clock.get() is not SYSTEM
