"""What a task waits for: that somebody rings, on whatever thread, or that its time has come."""

from __future__ import annotations

import asyncio

from spoolproof.clock import Clock


class Bell:
    """Of one task, on the event loop on which it is made. Rung twice it has rung once."""

    __slots__ = ("_future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self.loop.create_future()

    def ring(self, _: object = None) -> None:
        """Let the task go on. Only on its own event loop."""
        if not self._future.done():
            self._future.set_result(None)

    def ring_from_afar(self, _: object = None) -> None:
        """The same from any thread. Raises RuntimeError if the event loop is closed."""
        self.loop.call_soon_threadsafe(self.ring)

    async def wait(self, clock: Clock, until: float | None) -> None:
        """Return once it has rung, or at `until`; then it is as new."""
        timer = None if until is None else clock.call_at(until, self.ring)
        try:
            await self._future
        finally:
            if timer is not None:
                timer.cancel()
        self._future = self.loop.create_future()
