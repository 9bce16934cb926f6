"""Holds handlers back while the store is away, so that an outage burns no attempt and floods no dead letters.

An error that looks like an outage may be one message's alone: a statement that fills the disk's share of temporary
files, a transaction the server ended for being idle. So the gate shuts and asks the store to write something, on a
connection of its own, at once. If that works there is no outage, the gate is open again and the message has failed.

Shut means: no handler starts. Deliveries stay unacked, prefetch fills, the broker stops by itself; nothing is nacked
back and forth, which would count towards the broker's delivery limit. One write at a time asks for the store, every
0.25 s doubling to 2 s: a database that only reads would let every handler call the world and remember none of it.

After the first write that works the gate is half open: one delivery goes through, and another one every few seconds,
until one has passed. What handlers need may be more than one small write.
"""

from __future__ import annotations

import asyncio
import math
from enum import StrEnum

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.consumer.events import GateClosed, GateOpened, GateProbeFailed
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.ports.broker import Spawn
from spoolproof.ports.state import State
from spoolproof.telemetry.events import emit

_PROBE = ("gate", "probe", b"")  #: kind, name and value of the fact whose writing shows that the store writes


class GateClosing(Exception):
    """The service drains; what waits here is handed back unstarted."""


class GateState(StrEnum):
    """Whether handlers may start."""

    OPEN = "open"
    SHUT = "shut"
    HALF_OPEN = "half_open"


class Gate:
    """One per process, shared by all its consumers."""

    def __init__(self, state: State, *, clock: Clock, spawn: Spawn) -> None:
        self._facts = state
        self._clock = clock
        self._spawn = spawn
        self._changed = asyncio.Event()
        self._state = GateState.OPEN
        self._is_outage: asyncio.Future[bool] | None = None  #: while shut: what the first write says
        self._next_trial_at = -math.inf
        self._probe_seconds = limits.STORE_PING_FIRST_SECONDS
        self.is_draining = False
        self.shut_reason: str | None = None  #: while shut by an outage

    async def wait(self, *, until: float = math.inf) -> bool:
        """Return True once the caller may go, or False if it may not at `until`, in monotonic seconds. Whoever used the
        store then says how it went: `passed` or `confirms`.

        Raises GateClosing when the service drains before that.
        """
        while not self._lets_go():
            if self.is_draining:
                raise GateClosing
            now = self._clock.monotonic()
            if now >= until:
                return False
            trial_at = self._next_trial_at if self._state is GateState.HALF_OPEN else math.inf
            seconds = min(until, trial_at) - now
            try:
                async with asyncio.timeout(None if seconds == math.inf else seconds):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return True

    async def confirms(self, error: Unavailable | LimitReached) -> bool:
        """Whether the store is away, so that who met `error` is to wait here. False: the error is its own."""
        if self._state is not GateState.SHUT:
            before, self._state = self._state, GateState.SHUT
            self._is_outage = asyncio.get_running_loop().create_future()
            self._spawn(self._probe(error, before, self._is_outage), "consumer.gate")
        assert self._is_outage is not None
        return await asyncio.shield(self._is_outage)  # others wait for the same answer

    def passed(self) -> None:
        """Note that somebody used the store and it did what it should."""
        if self._state is GateState.HALF_OPEN:
            self._probe_seconds = limits.STORE_PING_FIRST_SECONDS
            self._turn(GateState.OPEN)
            emit(GateOpened())

    def drain(self) -> None:
        """Let nobody wait here any longer."""
        self.is_draining = True
        self._turn(self._state)

    def _lets_go(self) -> bool:
        if self._state is not GateState.HALF_OPEN:
            return self._state is GateState.OPEN
        now = self._clock.monotonic()
        if now < self._next_trial_at:
            return False
        self._next_trial_at = now + limits.STORE_TRIAL_SECONDS
        return True

    def _turn(self, state: GateState) -> None:
        self._state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _probe(self, error: Exception, before: GateState, is_outage: asyncio.Future[bool]) -> None:
        """Ask until the store writes."""
        try:
            while not await self._writes():
                if not is_outage.done():
                    is_outage.set_result(True)
                    self.shut_reason = str(error)
                    if before is GateState.OPEN:
                        emit(GateClosed(error=str(error)))
                await self._clock.sleep(self._probe_seconds)
                self._probe_seconds = min(limits.STORE_PING_MAX_SECONDS, 2 * self._probe_seconds)
        except BaseException:  # the process ends: what waits goes back as it is
            if not is_outage.done():
                is_outage.set_result(True)
            raise
        was_outage = is_outage.done()
        if not was_outage:
            is_outage.set_result(False)
        self.shut_reason = None
        self._next_trial_at = -math.inf
        self._turn(GateState.HALF_OPEN if was_outage else before)

    async def _writes(self) -> bool:
        try:
            await self._facts.put(*_PROBE)
        except Exception as error:  # whatever it is: a store that cannot write this is of no use to a handler
            emit(GateProbeFailed(error=error_line(error)))
            return False
        return True
