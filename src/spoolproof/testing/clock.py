"""A clock that moves only when told, driving both readings, every sleep and every timer made through it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

from spoolproof.clock import use

_TURNS = 10  #: of the event loop after each timer, so that what it woke runs before the next


class _Timer:
    """A callback of a manual clock."""

    __slots__ = ("callback", "is_cancelled")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    """Implements `spoolproof.clock.Clock`. Starts at 2026-01-01 UTC; `advance` fires the timers it passes.

    `with clock.active():` puts it in the place of the machine's clock for policies, also those made at import.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = 0

    @contextmanager
    def active(self) -> Iterator[ManualClock]:
        """Be the clock of this context."""
        with use(self):
            yield self

    def now(self) -> datetime:
        """Return the wall-clock time, UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def move_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does; the monotonic one does not move."""
        self._start += timedelta(seconds=seconds)

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        timer = self.call_at(self._elapsed + seconds, wake)
        try:
            await waiter
        finally:
            timer.cancel()

    def sleep_blocking(self, seconds: float) -> None:
        """Move the clock on by `seconds` at once: a thread that sleeps here has nobody else to move it."""
        self._fire_until(self._elapsed + max(0.0, seconds))

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        """Call `callback` when the clock is advanced to `when` or beyond."""
        timer = _Timer(callback)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Move both clocks on, firing timers in the order of their time and letting what they wake run in between."""
        target = self._elapsed + seconds
        await _turns()
        while self._fire_next(target):
            await _turns()
        self._elapsed = max(self._elapsed, target)
        await _turns()

    @asynccontextmanager
    async def auto_advance(self) -> AsyncIterator[None]:
        """Jump to the next timer whenever every task waits for this clock, for as long as the block runs."""
        jumping = asyncio.get_running_loop().create_task(self._jump(), name="manual clock")
        try:
            yield
        finally:
            jumping.cancel()
            await asyncio.gather(jumping, return_exceptions=True)

    async def _jump(self) -> None:
        while True:
            await _turns()
            self._fire_next(float("inf"))

    def _fire_until(self, target: float) -> None:
        while self._fire_next(target):
            continue
        self._elapsed = max(self._elapsed, target)

    def _fire_next(self, target: float) -> bool:
        """Move to the next timer due by `target` and fire it; False if there is none."""
        while self._timers and self._timers[0][0] <= target:
            due, _, timer = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                self._elapsed = max(self._elapsed, due)
                timer.callback()
                return True
        return False


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
