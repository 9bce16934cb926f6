"""Whether a broker that was away accepts connections again: bare TCP connects while a round waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.brokers.rabbitmq.urls import Address
from spoolproof.clock import Clock


class Probe:
    """Watches addresses for the turn from refusing to accepting.

    One that always accepts (a load balancer without a broker behind it) never turns, so it cannot defeat the back-off.
    """

    def __init__(self, addresses: Sequence[Address], clock: Clock, random: RandomSource) -> None:
        self._accepts = dict.fromkeys(addresses, True)
        self._clock = clock
        self._random = random

    def saw(self, address: Address, is_accepting: bool) -> None:
        """Note what a connection attempt met."""
        self._accepts[address] = is_accepting

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as an address turns, or False after `seconds`."""
        deadline = self._clock.monotonic() + seconds
        while True:
            left = deadline - self._clock.monotonic()
            pause = spread_seconds(limits.PROBE_INTERVAL_SECONDS, ratio=0.2, source=self._random)
            await self._clock.sleep(max(0.0, min(left, pause)))
            if left <= pause:
                return False
            if await self._has_turned():
                return True

    async def _has_turned(self) -> bool:
        addresses = list(self._accepts)
        accepting = await asyncio.gather(*(_is_accepting(address) for address in addresses))
        before = dict(self._accepts)
        self._accepts.update(zip(addresses, accepting, strict=True))
        return any(self._accepts[address] and not before[address] for address in addresses)


async def _is_accepting(address: Address) -> bool:
    try:
        async with asyncio.timeout(limits.PROBE_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except OSError:  # TimeoutError among them
        return False
    writer.transport.abort()
    return True
