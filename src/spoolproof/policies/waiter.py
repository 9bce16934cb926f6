"""A place in a queue, for a task or for a thread. Woken from any thread, at most once for each wait."""

from __future__ import annotations

import asyncio
import threading

from spoolproof.clock import Clock, is_replaced
from spoolproof.policies.retry import refuse_event_loop


class Waiter:
    """Somebody who waits. is_granted, is_refused: what the queue decided; written under the queue's lock."""

    __slots__ = ("cost", "is_granted", "is_refused")

    def __init__(self, cost: float = 1.0) -> None:
        self.cost = cost
        self.is_granted = False
        self.is_refused = False

    def wake(self) -> bool:
        """Let it look again; False if nobody is there any more."""
        raise NotImplementedError


class TaskWaiter(Waiter):
    """A task on an event loop. Not `asyncio.Semaphore`: that belongs to one loop, and a policy does not."""

    __slots__ = ("_future", "_loop")

    def __init__(self, cost: float = 1.0) -> None:
        super().__init__(cost)
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> bool:
        """Wake the task, from whatever thread."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False  # its loop is closed, and the task gone with it
        return True

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, clock: Clock, until: float) -> None:
        """Return once woken, or at `until` (monotonic seconds)."""
        timer = clock.call_at(until, self._wake) if until < float("inf") else None
        try:
            await self._future
        finally:
            if timer is not None:
                timer.cancel()
        self._future = self._loop.create_future()


class ThreadWaiter(Waiter):
    """A thread that blocks."""

    __slots__ = ("_event",)

    def __init__(self, cost: float = 1.0) -> None:
        super().__init__(cost)
        refuse_event_loop("waiting for admission")
        self._event = threading.Event()

    def wake(self) -> bool:
        """Wake the thread."""
        self._event.set()
        return True

    def wait(self, clock: Clock, until: float) -> None:
        """Return once woken, or at `until` (monotonic seconds)."""
        left = max(0.0, until - clock.monotonic())
        if is_replaced() and left < float("inf"):
            if not self._event.is_set():
                clock.sleep_blocking(left)
        else:
            self._event.wait(None if left == float("inf") else left)
        self._event.clear()
