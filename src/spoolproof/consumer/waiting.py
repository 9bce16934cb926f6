"""Room for deliveries that wait for a handler.

A broker hands out at most a prefetch of unsettled deliveries, and after every reconnect the same ones anew, while the
old ones, stale by then, may still wait here behind a shut gate or a slow handler. They are let go when the room is
needed: the broker delivers them again by itself. To nack the new ones instead would bring them back at once, again and
again, up to the broker's delivery limit: an outage would make dead letters.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol, TypeVar

from spoolproof.ports.broker import Incoming


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery and when it arrived, in monotonic seconds."""

    delivery: Incoming
    arrived_at: float

    @property
    def is_stale(self) -> bool:
        """See ports.broker.Incoming."""
        return self.delivery.is_stale


class Perishable(Protocol):
    """What may be let go of once it is stale."""

    @property
    def is_stale(self) -> bool:
        """See ports.broker.Incoming."""


D = TypeVar("D", bound=Perishable | None)


def make_room(waiting: asyncio.Queue[D]) -> bool:
    """Let go of what is stale if the queue is full, all of it, so that the rest keeps its order; True if it has room.

    None entries are signals of the owner and stay.
    """
    for _ in range(waiting.qsize() if waiting.full() else 0):
        one = waiting.get_nowait()
        if one is None or not one.is_stale:
            waiting.put_nowait(one)
    return not waiting.full()
