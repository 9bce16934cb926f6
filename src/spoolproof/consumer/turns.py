"""Lets the deliveries of one message run one after the other in this process.

A message comes again while it is still in hand: as the copy of a delivery that was held for long, or because the
connection was lost under it. A handler without a `Transaction` may have succeeded by then, with only the recording of
that missing: the one that came again must find the record, or it would call the world once more.
"""

from __future__ import annotations

import asyncio

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.consumer.work import Work


class Turns:
    """One per process, shared by all its consumers."""

    def __init__(self, gate: Gate, *, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock
        self._in_hand: dict[tuple[str, str], Work] = {}
        self._ended = asyncio.Event()

    async def wait(self, work: Work, *, until: float) -> bool:
        """Return True once the message is in no other hands, and in these until `end`; False if it still is at `until`,
        in monotonic seconds. Raises GateClosing when the service drains before that."""
        if work.key is None:
            return True
        while self._in_hand.setdefault((work.queue, work.key), work) is not work:
            if self._gate.is_draining:
                raise GateClosing
            left = until - self._clock.monotonic()
            if left <= 0:
                return False
            self._ended.clear()
            try:
                async with asyncio.timeout(min(limits.POLL_MAX_SECONDS, left)):
                    await self._ended.wait()
            except TimeoutError:
                continue
        return True

    def end(self, work: Work) -> None:
        """Let the next one have its turn, if this was one."""
        if work.key is not None and self._in_hand.get((work.queue, work.key)) is work:
            del self._in_hand[work.queue, work.key]
            self._ended.set()
