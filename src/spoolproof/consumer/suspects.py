"""Finds the message that ends its process, and gives it up at the third time.

A delivery that the broker has made before is a suspect: the process that had it may have ended over it. Its run is
recorded in the store before it begins, and however the run ends in a living process, the record goes. What is left
names runs that their processes did not survive. Two of those, after the first one that nobody recorded, and the
message is given up without running.

One that left a record runs alone in its process: it takes no neighbour with it, and no neighbour takes it. All others
that a restarted broker delivers again run beside each other as ever; a first delivery costs nothing.

The record of what was given up stays: the broker may have the message twice. A replay has a record of its own.

A run is taken for unfinished only when its process is gone from the process table: a connection that is lost under a
slow handler makes redeliveries, and no crash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.floor import Floor
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.consumer.records import RunRecords
from spoolproof.consumer.work import Refusal, Work
from spoolproof.message import REPLAY_NO
from spoolproof.ports.broker import Spawn
from spoolproof.ports.leases import Leases
from spoolproof.ports.state import SUSPECT, State

CRASH_LOOP = "crash_loop"


class Suspects:
    """The deliveries of one process that came before."""

    def __init__(
        self,
        state: State,
        leases: Leases,
        gate: Gate,
        process_id: Callable[[], UUID],
        *,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        """process_id: this process's, as its peers see it now."""
        self._records = RunRecords(state, SUSPECT, clock=clock, spawn=spawn)
        self._leases = leases
        self._gate = gate
        self._process_id = process_id
        self._clock = clock
        self._floor = Floor()

    @asynccontextmanager
    async def running(self, work: Work) -> AsyncIterator[None]:
        """Run a delivery inside. Raises Refusal for one that ended its process too often, StoreUnavailable."""
        if work.delivery.delivery_count == 0:
            async with self._floor.shared():
                yield
            return
        name = _name_of(work)
        runs = await self._unfinished(name)
        async with self._floor.alone() if runs else self._floor.shared():
            await self._records.begin(name, [*runs, str(self._process_id())])
            try:
                yield
            finally:
                await self._records.end(name)

    async def _unfinished(self, name: str) -> list[str]:
        """Return the processes that ended while the message ran, once it runs nowhere. Raises Refusal at two."""
        while True:
            runs, own = await self._records.runs(name), str(self._process_id())
            alive = {str(process.id) for process in await self._leases.processes()} if runs else set()
            if not self._records.is_here(name) and not (alive - {own}) & set(runs):
                break
            if self._gate.is_draining:
                raise GateClosing
            await self._clock.sleep(limits.POLL_MAX_SECONDS)
        unfinished = [process for process in runs if process != own]
        if len(unfinished) >= limits.CRASHES_MAX - 1:
            times = len(unfinished) + 1
            raise Refusal(CRASH_LOOP, f"{times} times the process that ran it ended before it did")
        return unfinished


def _name_of(work: Work) -> str:
    return f"{work.queue}/{work.key or work.content_key}/{work.message.headers.get(REPLAY_NO, 0)}"
