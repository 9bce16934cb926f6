"""Finds the message that ends its process, and gives it up at the third time.

A delivery that the broker has made before is a suspect: the process that had it may have ended over it. Its run is
recorded in the store before it begins, and however the run ends in a living process, the record goes. What is left
names runs that their processes did not survive. Two of those, after the first one that nobody recorded, and the
message is given up without running.

One that left a record runs alone in its process: it takes no neighbour with it, and no neighbour takes it. All others
that a restarted broker delivers again run beside each other as ever; a first delivery costs nothing.

The record of what was given up stays: the broker may have the message twice. A replay has a record of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from spoolproof import limits
from spoolproof.consumer.floor import Floor
from spoolproof.consumer.records import RunRecords
from spoolproof.consumer.work import Refusal, Work
from spoolproof.message import REPLAY_NO

CRASH_LOOP = "crash_loop"


class Suspects:
    """The deliveries of one process that came before."""

    def __init__(self, records: RunRecords) -> None:
        self._records = records
        self._floor = Floor()

    def running(self, work: Work) -> AbstractAsyncContextManager[None]:
        """Run a delivery inside. Raises Refusal for one that ended its process too often, StoreUnavailable."""
        return self._floor.shared if work.delivery.delivery_count == 0 else self._suspected(work)

    @asynccontextmanager
    async def _suspected(self, work: Work) -> AsyncIterator[None]:
        name = _name_of(work)
        ended = await self._ended(name)
        async with self._floor.alone() if ended else self._floor.shared:
            await self._records.begin(name, ended)
            try:
                yield
            finally:
                await self._records.end(name)

    async def _ended(self, name: str) -> list[str]:
        """Return the processes that ended while the message ran, once it runs nowhere. Raises Refusal at two."""
        ended = await self._records.ended(name)
        if len(ended) >= limits.CRASHES_MAX - 1:
            times = len(ended) + 1
            raise Refusal(CRASH_LOOP, f"{times} times the process that ran it ended before it did")
        return ended


def _name_of(work: Work) -> str:
    return f"{work.queue}/{work.key or work.content_key}/{work.message.headers.get(REPLAY_NO, 0)}"
