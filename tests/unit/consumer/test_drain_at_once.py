"""A service with nothing to do ends at once: no loop sleeps into a drain."""

from __future__ import annotations

from spoolproof import Service
from spoolproof.clock import SystemClock
from spoolproof.settings import Settings


async def test_an_idle_service_drains_in_a_moment() -> None:
    """A loop beside the handlers slept for a minute, and every deploy waited half of it."""
    service, clock = Service("shop", settings=Settings(store="memory://", broker="memory://")), SystemClock()

    @service.on("order")
    async def book(payload: dict[str, int]) -> None: ...

    await service.start()
    await clock.sleep(0.3)
    began = clock.monotonic()
    await service.drain(30)
    took = clock.monotonic() - began
    await service.stop()

    assert took < 5
