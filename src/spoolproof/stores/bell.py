"""A bell of this process's loop. A ring stays until it is heard, so one between two waits is not lost."""

from __future__ import annotations

import asyncio


class Bell:
    """Implements `ports.wakeup.WakeUp` within one process."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def notify(self) -> None:
        self._rung.set()

    async def wait(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True
