"""A place in a queue, for a task of any event loop or for a thread. Woken from any thread; spurious wakes are harmless.

Not `asyncio.Semaphore`: that belongs to one event loop, and a policy does not.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from enum import Enum

from spoolproof.clock import Clock, is_replaced
from spoolproof.policies.call import Call
from spoolproof.policies.retry import refuse_event_loop

NEVER = float("inf")
LATE_SECONDS_MAX = 0.1  #: after its time; one that is later stands still, and what it holds goes to the next


class Standing(Enum):
    """Where a waiter stands: in the queue, granted and not yet aware of it, or done with waiting."""

    QUEUED = "queued"
    GRANTED = "granted"
    OVER = "over"


class Waiter(ABC):
    """Somebody who waits. Everything but `wake` and `wait` is read and written under the lock of the line.

    ends_at: when it stops waiting. wakes_at: when it looks again by itself. deadline_at: of its caller.
    """

    __slots__ = ("cost", "deadline_at", "ends_at", "lane", "permit", "standing", "wakes_at")

    def __init__(self, call: Call, ends_at: float) -> None:
        self.lane = call.lane
        self.cost = call.cost
        self.deadline_at = NEVER if call.deadline_at is None else call.deadline_at
        self.ends_at = self.wakes_at = min(ends_at, self.deadline_at)
        self.permit: object = True
        self.standing = Standing.QUEUED

    def is_gone(self, now: float) -> bool:
        """Whether a grant would find nobody in time. Who is only a little late is there: it will look any moment."""
        return now >= self.deadline_at or now > self.ends_at + LATE_SECONDS_MAX

    @abstractmethod
    def wake(self) -> bool:
        """Let it look again, from whatever thread; False if it never will."""

    async def wait(self, clock: Clock) -> None:
        """Return once woken, or at `wakes_at`."""
        raise NotImplementedError


class TaskWaiter(Waiter):
    """A task on an event loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self, call: Call, ends_at: float) -> None:
        super().__init__(call, ends_at)
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def is_gone(self, now: float) -> bool:
        """Also when its event loop is closed: the task was dropped with it."""
        return self._loop.is_closed() or super().is_gone(now)

    def wake(self) -> bool:
        """Wake the task; at once on its own loop, where the detour over the selector would cost more than the wait."""
        if _running_loop() is self._loop:
            self._wake()
            return True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # closed
            return False
        return True

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, clock: Clock) -> None:  # noqa: D102  as above
        timer = clock.call_at(self.wakes_at, self._wake)
        try:
            await self._future
        finally:
            timer.cancel()
        self._future = self._loop.create_future()


class ThreadWaiter(Waiter):
    """A thread that blocks. Raises PolicyUsageError on one that runs an event loop."""

    __slots__ = ("_event",)

    def __init__(self, call: Call, ends_at: float) -> None:
        super().__init__(call, ends_at)
        refuse_event_loop(f"policy {call.name!r}: waiting for admission")
        self._event = threading.Event()

    def wake(self) -> bool:
        """Wake the thread."""
        self._event.set()
        return True

    async def wait(self, clock: Clock) -> None:
        """The same, blocking. A test clock is slept on, so there a wake is seen only afterwards."""
        left = max(0.0, self.wakes_at - clock.monotonic())
        if is_replaced():
            if not self._event.is_set():
                clock.sleep_blocking(left)
        else:
            self._event.wait(left)
        self._event.clear()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
