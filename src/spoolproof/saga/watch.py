"""Who waits in this process for news of a saga, and is told when some have become durable.

A saga that runs in another process is heard of by looking, more and more seldom.

Never here: what the news is. Whoever is told looks into the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from spoolproof.clock import Clock

_LOOK_SECONDS = (0.1, 1.0)  #: the first and the longest wait without news


class Waiter:
    """One who waits. wants_steps: for every write, not only for those that move the saga."""

    def __init__(self, clock: Clock, *, wants_steps: bool) -> None:
        self.wants_steps = wants_steps
        self.event = asyncio.Event()
        self._clock = clock
        self._seconds, self._longest = _LOOK_SECONDS

    def begin(self) -> None:
        """Count news from here on: called before a look, so that none falls between look and wait."""
        self.event.clear()

    async def wait(self, most: float) -> None:
        """Return when there is news since `begin`, or it is time for a look; after `most` seconds at the latest."""
        timer = self._clock.call_at(self._clock.monotonic() + min(most, self._seconds), self.event.set)
        self._seconds = min(self._longest, self._seconds * 1.5)
        try:
            await self.event.wait()
        finally:
            timer.cancel()


class Watch:
    """All who wait, by saga."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiters: dict[str, list[Waiter]] = {}

    def told(self, saga_id: str, *, has_moved: bool) -> None:
        """Tell who waits for a saga that something of it is durable. has_moved: it changed its state, or sleeps."""
        for waiter in self._waiters.get(saga_id, ()):
            if has_moved or waiter.wants_steps:
                waiter.event.set()

    @contextmanager
    def waiting(self, saga_id: str, *, wants_steps: bool) -> Iterator[Waiter]:
        """Be among those who wait, for the block."""
        waiter = Waiter(self._clock, wants_steps=wants_steps)
        self._waiters.setdefault(saga_id, []).append(waiter)
        try:
            yield waiter
        finally:
            self._waiters[saga_id].remove(waiter)
            if not self._waiters[saga_id]:
                del self._waiters[saga_id]
