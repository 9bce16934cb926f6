"""Finds the message that ends its process, and gives it up at the third time.

A delivery that the broker has made before is a suspect: the process that had it may have ended over it. Its run is
recorded in the store before it begins, and however the run ends in a living process, the record goes. What is left
names runs that their processes did not survive. Two of those, after the first one that nobody recorded, and the
message is given up without running.

One that left a record runs alone in its process: it takes no neighbour with it, and no neighbour takes it. All others
that a restarted broker delivers again run beside each other as ever; a first delivery costs nothing.

A run is taken for unfinished only when its process is gone from the process table: a connection that is lost under a
slow handler makes redeliveries, and no crash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.floor import Floor
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.consumer.work import Refusal, Work
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.ports.broker import Spawn
from spoolproof.ports.state import SUSPECT
from spoolproof.ports.store import Store

CRASH_LOOP = "crash_loop"

_decoder = msgspec.json.Decoder(list[str])


class Suspects:
    """The deliveries of one process that came before."""

    def __init__(self, store: Store, gate: Gate, process_id: Callable[[], UUID], *, clock: Clock, spawn: Spawn) -> None:
        """process_id: this process's, as its peers see it now."""
        self._store = store
        self._gate = gate
        self._process_id = process_id
        self._clock = clock
        self._spawn = spawn
        self._floor = Floor()
        self._here: set[str] = set()  #: those that run in this process
        self._left: set[str] = set()  #: those that do not, and whose record could not be removed yet

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
            self._here.add(name)
            try:
                await self._store.state.put(SUSPECT, name, msgspec.json.encode([*runs, str(self._process_id())]))
                yield
            finally:
                self._here.discard(name)
                await self._remove(name)

    async def forget(self, work: Work) -> None:
        """Count from the start again: the message became a dead letter, and somebody may replay it."""
        with suppress(Unavailable, LimitReached):
            await self._store.state.remove(SUSPECT, _name_of(work))

    async def _remove(self, name: str) -> None:
        try:
            await self._store.state.remove(SUSPECT, name)
        except (Unavailable, LimitReached):
            if name not in self._left:
                self._left.add(name)
                self._spawn(self._remove_later(name), "consumer.suspects")

    async def _remove_later(self, name: str) -> None:
        """Remove what names this process, which lives, or whoever gets the message next would wait for its end."""
        try:
            while name not in self._here:  # if it runs here again, the end of that run removes it
                with suppress(Unavailable, LimitReached):
                    await self._store.state.remove(SUSPECT, name)
                    return
                await self._clock.sleep(limits.STORE_PING_MAX_SECONDS)
        finally:
            self._left.discard(name)

    async def _unfinished(self, name: str) -> list[str]:
        """Return the processes that ended while the message ran, once it runs nowhere. Raises Refusal at two."""
        while True:
            record = await self._store.state.get(SUSPECT, name)
            runs = [] if record is None else _runs_of(record.value)
            own = str(self._process_id())
            alive = {str(process.id) for process in await self._store.leases.processes()} if runs else set()
            if name not in self._here and not (alive - {own}) & set(runs):
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
    return f"{work.queue}/{work.key or work.content_key}"


def _runs_of(value: bytes) -> list[str]:
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError:
        return []
