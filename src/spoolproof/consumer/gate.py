"""Holds handlers back while the store is away, so that an outage burns no attempt and floods no dead letters.

Shut means: no handler starts. Deliveries stay unacked, prefetch fills, the broker stops by itself; nothing is nacked
back and forth, which would count towards the broker's delivery limit. One ping at a time asks for the store, every
0.25 s doubling to 2 s, and its first answer opens the gate.
"""

from __future__ import annotations

import asyncio
import logging
import math

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.ports.broker import Spawn
from spoolproof.ports.store import Store

logger = logging.getLogger("spoolproof.consumer")


class GateClosing(Exception):
    """The service drains; what waits here is handed back unstarted."""


class Gate:
    """One per process, shared by all its consumers."""

    def __init__(self, store: Store, *, clock: Clock, spawn: Spawn) -> None:
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._changed = asyncio.Event()
        self.is_draining = False
        self.shut_reason: str | None = None

    async def wait(self, *, until: float = math.inf) -> bool:
        """Return True once the gate is open, or False if it is still shut at `until`, in monotonic seconds.

        Raises GateClosing when the service drains before that.
        """
        while self.shut_reason is not None:
            if self.is_draining:
                raise GateClosing
            left = until - self._clock.monotonic()
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(None if left == math.inf else left):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return True

    def shut(self, error: Unavailable | Exception) -> None:
        """Hold further handlers back until the store answers. Does nothing when already shut."""
        if self.shut_reason is None:
            self.shut_reason = str(error)
            self._changed.clear()
            logger.warning("consumer.gate.closed error=%s", error)
            self._spawn(self._reopen(), "consumer.gate")

    def drain(self) -> None:
        """Let nobody wait here any longer."""
        self.is_draining = True
        self._changed.set()

    async def _reopen(self) -> None:
        seconds = limits.STORE_PING_FIRST_SECONDS
        while True:
            await self._clock.sleep(seconds)
            try:
                await self._store.ping()
            except (Unavailable, LimitReached):  # a busy store refuses pings too
                seconds = min(limits.STORE_PING_MAX_SECONDS, 2 * seconds)
            else:
                break
        self.shut_reason = None
        self._changed.set()
        logger.warning("consumer.gate.opened")
