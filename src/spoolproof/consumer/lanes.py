"""The deliveries of an ordered queue, in lanes: those of one ordering key run one by one, in the order they came.

A key's lane is found by its hash; keys that share a lane wait for each other, which costs time and never order. What
has no key has a lane of its own. A lane hands out its next delivery when the one before it is done: it has ended, or
it is stale and the broker sends it again, behind what waits here and before what it has not sent yet.

Must never happen here: a delivery handed out while an earlier one of its key is in hand, or after one that was sent
back; that is why a lane gives up none from its middle.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque

from spoolproof import limits
from spoolproof.consumer.waiting import Waiting


def lane_of(key: str) -> int:
    """Return the number of a key's lane."""
    return zlib.crc32(key.encode()) % limits.ORDERED_LANES


class Lanes(asyncio.Queue[Waiting | None]):
    """A queue of the deliveries that may run now; the others wait behind them. None entries are signals of the owner.

    Whoever gets a delivery calls `done` in the end, or `put_back`.
    """

    def __init__(self, most: int) -> None:
        """most: with more than this here, what is stale is let go."""
        super().__init__()
        self._most = most
        self._behind: dict[int, deque[Waiting]] = {}  #: by lane that has a delivery ready or in hand
        self._count = 0

    def add(self, waiting: Waiting) -> None:
        """Put a delivery at the end of its lane."""
        if self._count >= self._most:
            self._drop_stale()
        behind = self._behind.get(lane := self._lane(waiting))
        if behind is None:
            self._behind[lane] = deque()
            self.put_nowait(waiting)
        else:
            behind.append(waiting)
            self._count += 1

    def put_back(self, waiting: Waiting) -> None:
        """Let a delivery in hand be the next of its lane again."""
        self.put_nowait(waiting)

    def done(self, waiting: Waiting) -> None:
        """Let the lane of a delivery in hand go on."""
        behind = self._behind[lane := self._lane(waiting)]
        if behind:
            self._count -= 1
            self.put_nowait(behind.popleft())
        else:
            del self._behind[lane]

    def clear(self) -> None:
        """Forget all that nobody has in hand."""
        for behind in self._behind.values():
            behind.clear()
        self._count = 0
        while not self.empty():
            waiting = self.get_nowait()
            if waiting is not None:
                self.done(waiting)

    def _drop_stale(self) -> None:
        for behind in self._behind.values():
            kept = [one for one in behind if not one.is_stale]
            behind.clear()
            behind.extend(kept)
        self._count = sum(map(len, self._behind.values()))

    def _lane(self, waiting: Waiting) -> int:
        key = waiting.delivery.message.key
        return -id(waiting) if key is None else lane_of(key)
