"""Which processes have begun to run a message and not lived to say how it went: one record per message, in the store.

A record goes with the end of the run, whatever that is. If the store is away then, it goes as soon as the store is
back: it names a process that lives, and whoever gets the message next would wait for that one's end.

A run is taken for unfinished only when its process is gone from the process table: a connection that is lost under a
slow handler makes redeliveries, and no crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.ports.broker import Spawn
from spoolproof.ports.leases import Leases
from spoolproof.ports.state import State

_decoder = msgspec.json.Decoder(list[str])


class RunRecords:
    """The records of one kind, as one process keeps them."""

    def __init__(
        self,
        kind: str,
        state: State,
        leases: Leases,
        gate: Gate,
        process_id: Callable[[], UUID],
        *,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        """process_id: this process's, as its peers see it now."""
        self._kind = kind
        self._state = state
        self._leases = leases
        self._gate = gate
        self._process_id = process_id
        self._clock = clock
        self._spawn = spawn
        self._here: set[str] = set()  #: those that run in this process
        self._left: set[str] = set()  #: those that do not, and whose record could not be removed yet

    async def ended(self, name: str) -> list[str]:
        """Wait until the message runs nowhere; return the processes that ended while it ran there, in that order.

        Raises GateClosing when the service drains before that, StoreUnavailable.
        """
        while True:
            runs, own = await self._runs(name), str(self._process_id())
            alive = {str(process.id) for process in await self._leases.processes()} if runs else set()
            if name not in self._here and not (alive - {own}) & set(runs):
                return [process for process in runs if process != own]
            if self._gate.is_draining:
                raise GateClosing
            await self._clock.sleep(limits.POLL_MAX_SECONDS)

    async def _runs(self, name: str) -> list[str]:
        record = await self._state.get(self._kind, name)
        with suppress(msgspec.MsgspecError):  # one that cannot be read names no process
            return [] if record is None else _decoder.decode(record.value)
        return []

    async def begin(self, name: str, after: Sequence[str] = ()) -> None:
        """Record that a run begins here, after those that ended; durable on return. Raises StoreUnavailable."""
        self._here.add(name)
        try:
            await self._state.put(self._kind, name, msgspec.json.encode([*after, str(self._process_id())]))
        except BaseException:
            await self.end(name)  # it may have been written
            raise

    async def end(self, name: str) -> None:
        """Forget a run: it has ended in a living process."""
        self._here.discard(name)
        try:
            await self._forget(name)
        except (Unavailable, LimitReached):
            if name not in self._left:
                self._left.add(name)
                self._spawn(self._forget_later(name), "consumer.records")

    async def _forget(self, name: str) -> None:
        await self._state.remove(self._kind, name)

    async def _forget_later(self, name: str) -> None:
        try:
            while name not in self._here:  # if it runs here again, the end of that run removes it
                with suppress(Unavailable, LimitReached):
                    await self._forget(name)
                    return
                await self._clock.sleep(limits.STORE_PING_MAX_SECONDS)
        finally:
            self._left.discard(name)
