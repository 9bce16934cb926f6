"""Which processes have begun to run a message and not lived to say how it went: one record per message, in the store.

A record goes with the end of the run, whatever that is. If the store is away then, it goes as soon as the store is
back: it names a process that lives, and whoever gets the message next would wait for that one's end.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.ports.broker import Spawn
from spoolproof.ports.state import State

_decoder = msgspec.json.Decoder(list[str])


class RunRecords:
    """The records of one kind, as one process keeps them."""

    def __init__(self, state: State, kind: str, *, clock: Clock, spawn: Spawn) -> None:
        self._state = state
        self._kind = kind
        self._clock = clock
        self._spawn = spawn
        self._here: set[str] = set()  #: those that run in this process
        self._left: set[str] = set()  #: those that do not, and whose record could not be removed yet

    def is_here(self, name: str) -> bool:
        """Whether the message runs in this process."""
        return name in self._here

    async def runs(self, name: str) -> list[str]:
        """Return the processes a record names; a record that cannot be read names none. Raises StoreUnavailable."""
        record = await self._state.get(self._kind, name)
        with suppress(msgspec.MsgspecError):
            return [] if record is None else _decoder.decode(record.value)
        return []

    async def begin(self, name: str, runs: list[str]) -> None:
        """Record that a run begins here, durable on return. Raises StoreUnavailable."""
        self._here.add(name)
        try:
            await self._state.put(self._kind, name, msgspec.json.encode(runs))
        except BaseException:
            await self.end(name)  # it may have been written
            raise

    async def end(self, name: str) -> None:
        """Forget a run: it has ended in a living process."""
        self._here.discard(name)
        try:
            await self.forget(name)
        except (Unavailable, LimitReached):
            if name not in self._left:
                self._left.add(name)
                self._spawn(self._forget_later(name), "consumer.records")

    async def forget(self, name: str) -> None:
        """Remove a record. Raises StoreUnavailable."""
        await self._state.remove(self._kind, name)

    async def _forget_later(self, name: str) -> None:
        try:
            while name not in self._here:  # if it runs here again, the end of that run removes it
                with suppress(Unavailable, LimitReached):
                    await self.forget(name)
                    return
                await self._clock.sleep(limits.STORE_PING_MAX_SECONDS)
        finally:
            self._left.discard(name)
