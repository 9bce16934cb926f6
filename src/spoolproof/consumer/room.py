"""Holds back the deliveries of a queue whose handler met a full outbox, until there is room for what it publishes.

To run it again sooner would call the world again for nothing, several times a second. Other queues go on: a handler
that publishes nothing may be what empties the broker's queue that the outbox waits for.

When there is room one delivery of the queue goes first; the others follow when it has passed.
"""

from __future__ import annotations

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.events import OutboxHasRoom, WaitsForRoom
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.errors import OutboxFull, Unavailable
from spoolproof.ports.outbox import Outbox
from spoolproof.telemetry.events import emit


class Room:
    """One per process, shared by all its consumers."""

    def __init__(self, outbox: Outbox, gate: Gate, *, clock: Clock) -> None:
        self._outbox = outbox
        self._gate = gate
        self._clock = clock
        self._wanted: dict[str, int] = {}  #: by queue, how many messages were refused
        self._trying: set[str] = set()  #: queues of which one delivery went first

    @property
    def waiting(self) -> tuple[str, ...]:
        """The queues that wait."""
        return tuple(self._wanted)

    async def wait(self, queue: str, *, until: float) -> bool:
        """Return True once a delivery of the queue may run, or False if there is no room at `until`, in monotonic
        seconds. Tell what became of it with `passed` or `refused`. Raises GateClosing when the service drains."""
        seconds = limits.STORE_PING_FIRST_SECONDS
        while queue in self._wanted:
            if queue not in self._trying and await self._has_room(self._wanted[queue]):
                self._trying.add(queue)
                break
            if self._gate.is_draining:
                raise GateClosing
            left = until - self._clock.monotonic()
            if left <= 0:
                return False
            await self._clock.sleep(min(seconds, left))
            seconds = min(limits.STORE_PING_MAX_SECONDS, 2 * seconds)
        return True

    def refused(self, queue: str, error: OutboxFull, messages: int) -> None:
        """Hold the queue back until there is room for so many messages."""
        if queue not in self._wanted:
            emit(WaitsForRoom(queue=queue, messages=messages, error=str(error)))
        self._wanted[queue] = max(1, messages)
        self._trying.discard(queue)

    def stays(self, queue: str) -> None:
        """Hold the queue back as before: the attempt met something else that it waits for."""
        self._trying.discard(queue)

    def passed(self, queue: str) -> None:
        """Let the queue go on: an attempt ended otherwise than for want of room."""
        if self._wanted.pop(queue, None) is not None:
            emit(OutboxHasRoom(queue=queue))
        self._trying.discard(queue)

    async def _has_room(self, messages: int) -> bool:
        try:
            return await self._outbox.has_room(messages)
        except Unavailable:
            return False
