"""A clock that moves only when told, driving both readings, every sleep and every timer made through it.

It may be read and slept on from any thread. A timer fires on the event loop it was armed on; timers and sleeps that are
due at the same moment fire in the order in which they were made.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Container, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

from spoolproof.clock import use

_TURNS_MIN = 10  #: of the event loop after each timer, so that what it woke runs before the next; sockets are polled
_TURNS_MAX = 100  #: after so many, tasks that never rest are not waited for
_IDLE_SECONDS = 0.001  #: real time between two looks for timers while there are none

_boots = itertools.count(1)


class _Timer:
    """A callback of a manual clock. loop: where it was armed, None on a thread without one."""

    __slots__ = ("_callback", "_loop", "is_cancelled")

    def __init__(self, callback: Callable[[], object], loop: asyncio.AbstractEventLoop | None) -> None:
        self._callback: Callable[[], object] | None = callback
        self._loop = loop
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self._callback = None  # it may stay queued for long, and must not keep alive whom it would have called

    def fire(self) -> None:
        """Call the callback, on its own event loop."""
        if self._loop is None or self._loop is _running_loop():
            self._call()
            return
        try:
            self._loop.call_soon_threadsafe(self._call)
        except RuntimeError:
            return  # its loop is closed, and whoever waited gone with it

    def _call(self) -> None:
        if self._callback is not None:
            self._callback()


class ManualClock:
    """Implements `spoolproof.clock.Clock`. Starts at 0 monotonic seconds; `advance` fires the timers it passes.

    `with ManualClock().active() as clock:` puts it in the place of the machine's clock for policies, also for those
    made at import. start: timezone-aware, 2026-01-01 UTC unless given. blocking_sleeps: the seconds of each
    `sleep_blocking`, in order.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError(f"start={start!r}: without a timezone; use datetime(…, tzinfo=UTC)")
        self._start = start.astimezone(UTC)
        self._elapsed = 0.0
        self._boot_id = f"manual-{next(_boots)}"
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = 0
        self._steppers = 0
        self._sleeping: dict[asyncio.Task[object], float] = {}
        self._blocked: set[threading.Event] = set()
        self.blocking_sleeps: list[float] = []

    @contextmanager
    def active(self) -> Iterator[ManualClock]:
        """Be the clock of this context, and of tasks and copies made in it. A bare thread has a context of its own."""
        with use(self):
            yield self

    # --- read --------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the wall-clock time, UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._elapsed

    def boot_id(self) -> str:
        """Return a name of this clock's own: another clock is another start of the machine."""
        return self._boot_id

    # --- wait --------------------------------------------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        due, task = self._elapsed + seconds, asyncio.current_task()
        timer = self.call_at(due, wake)
        if task is not None:
            self._sleeping[task] = due
        try:
            await waiter
        finally:
            timer.cancel()
            if task is not None:
                self._sleeping.pop(task, None)

    def sleep_blocking(self, seconds: float) -> None:
        """Move the clock on by `seconds` at once: a thread that sleeps here has nobody else to move it.

        While `auto_advance` moves it, a thread without an event loop waits for that instead, so that threads which
        sleep at the same time sleep through the same time.
        """
        self.blocking_sleeps.append(seconds)
        until = self._elapsed + max(0.0, seconds)
        while self._steppers and self._elapsed < until and _running_loop() is None:
            self._wait_blocking(until)
        self._fire_until(until)

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        """Call `callback` when the clock is advanced to `when` or beyond: soon if it is there, never for infinity."""
        loop = _running_loop()
        timer = _Timer(callback, loop)
        if when <= self._elapsed and loop is not None:
            loop.call_soon(timer.fire)
        elif when < float("inf"):
            with self._lock:
                self._order += 1
                heapq.heappush(self._timers, (when, self._order, timer))
        return timer

    # --- move --------------------------------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Move both clocks on, firing timers in the order of their time and letting what they wake run in between.

        What is due at the new time has fired when this returns. Raises ValueError for less than 0.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds!r}: 0 or more; move_wall sets the wall clock back")
        target = self._elapsed + seconds
        await _turns()
        while await self.step(target):
            continue
        self._move_to(target)
        await _turns()

    async def jump(self, seconds: float) -> None:
        """Move both clocks on at once: what falls due on the way fires late and once, as if all had stood still."""
        self._move_to(self._elapsed + seconds)
        await self.advance(0.0)

    async def step(self, until: float) -> bool:
        """Move to the next timer due by `until` and fire it, letting what it wakes run; False if there is none."""
        if not self._fire_next(until):
            return False
        await _turns()
        return True

    async def rest(self) -> None:
        """Let tasks run until all of them wait for this clock, or for something outside the event loop."""
        await _turns()

    def wakes_at(self, tasks: Container[str]) -> float | None:
        """Return when the first of these tasks, by name, that sleeps on this clock wakes; None if none sleeps."""
        return min((due for task, due in self._sleeping.items() if task.get_name() in tasks), default=None)

    def move_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does; the monotonic one does not move."""
        self._start += timedelta(seconds=seconds)

    @asynccontextmanager
    async def auto_advance(self) -> AsyncIterator[None]:
        """Jump to the next timer whenever every task waits for this clock, for as long as the block runs.

        A task that waits for something else (a socket, a thread at work) looks the same, and may find itself overtaken.
        """
        jumping = asyncio.get_running_loop().create_task(self._jump(), name="manual clock")
        self._steppers += 1
        try:
            yield
        finally:
            self._steppers -= 1
            for event in list(self._blocked):
                event.set()
            jumping.cancel()
            await asyncio.gather(jumping, return_exceptions=True)

    async def _jump(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await _turns()
            try:
                has_fired = self._fire_next(float("inf"))
            except Exception as error:  # of a callback: told as a loop tells it, and time goes on
                loop.call_exception_handler({"message": "a timer of a manual clock raised", "exception": error})
                continue
            if not has_fired:
                await asyncio.sleep(_IDLE_SECONDS)

    def _wait_blocking(self, until: float) -> None:
        woken = threading.Event()
        timer = self.call_at(until, woken.set)
        self._blocked.add(woken)
        try:
            if self._steppers:  # else the last one has ended and looked for whom to wake before this one was there
                woken.wait()
        finally:
            self._blocked.discard(woken)
            timer.cancel()

    def _fire_until(self, target: float) -> None:
        while self._fire_next(target):
            continue
        self._move_to(target)

    def _move_to(self, target: float) -> None:
        with self._lock:
            self._elapsed = max(self._elapsed, target)

    def _fire_next(self, target: float) -> bool:
        """Move to the next timer due by `target` and fire it; False if there is none."""
        with self._lock:
            while self._timers and self._timers[0][0] <= target:
                due, _, timer = heapq.heappop(self._timers)
                if not timer.is_cancelled:
                    self._elapsed = max(self._elapsed, due)
                    break
            else:
                return False
        timer.fire()
        return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _turns() -> None:
    """Let tasks run until none is ready, or they do not rest."""
    ready = getattr(asyncio.get_running_loop(), "_ready", None)  # asyncio's own loop says; uvloop does not
    for turn in range(_TURNS_MAX):
        await asyncio.sleep(0)
        if turn + 1 >= _TURNS_MIN and not ready:
            return
