"""Gathers what is to be sent to one place and sends it in tens, which is what SQS and SNS take at a time.

What the loop says in one turn goes together; while as many requests as may be are under way, more gathers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

from spoolproof import limits
from spoolproof.ports.broker import Spawn

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

ENTRIES_MAX = 10
_AT_ONCE = 8  #: requests under way per place: 80 messages per round trip


class Tens(Generic[K, T]):
    """send: takes a place and one to ten items; must not raise. weigh: the bytes of an item."""

    def __init__(
        self,
        name: str,
        send: Callable[[K, Sequence[T]], Coroutine[Any, Any, None]],
        spawn: Spawn,
        weigh: Callable[[T], int] = lambda _: 0,
    ) -> None:
        self._name = name
        self._send = send
        self._spawn = spawn
        self._weigh = weigh
        self._waiting: dict[K, deque[T]] = {}  # bounded by window and prefetch of whoever adds
        self._running: dict[K, int] = {}
        self._idle = asyncio.Event()

    def add(self, place: K, item: T) -> None:
        """Send an item soon."""
        waiting = self._waiting.get(place)
        if waiting is None:
            waiting = self._waiting[place] = deque()
            asyncio.get_running_loop().call_soon(self._pump, place)
        waiting.append(item)

    async def flush(self, seconds: float) -> None:
        """Return when all that was added is through, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self._waiting or self._running:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return

    def _pump(self, place: K) -> None:
        waiting = self._waiting.get(place)
        while waiting and self._running.get(place, 0) < _AT_ONCE:
            self._running[place] = self._running.get(place, 0) + 1
            self._spawn(self._run(place, self._ten(waiting)), self._name)
        if not waiting:
            self._waiting.pop(place, None)

    def _ten(self, waiting: deque[T]) -> list[T]:
        size = self._weigh(waiting[0])
        ten = [waiting.popleft()]
        while (
            waiting
            and len(ten) < ENTRIES_MAX
            and (size := size + self._weigh(waiting[0])) <= limits.SQS_MESSAGE_BYTES_MAX
        ):
            ten.append(waiting.popleft())
        return ten

    async def _run(self, place: K, items: Sequence[T]) -> None:
        try:
            await self._send(place, items)
        finally:
            self._running[place] -= 1
            if not self._running[place]:
                del self._running[place]
            self._pump(place)
            if not self._running and not self._waiting:
                self._idle.set()
