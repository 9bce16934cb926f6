"""A service with nothing to do ends at once: no loop sleeps into a drain, and none waits for its neighbours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from spoolproof import Service
from spoolproof.clock import SystemClock
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.settings import Settings

CLOCK = SystemClock()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"))

    @service.on("order")
    async def book(payload: dict[str, int]) -> None: ...

    await service.start()
    await CLOCK.sleep(0.3)  # until its loops rest
    yield service
    await service.stop()


async def test_an_idle_service_drains_in_a_moment(service: Service) -> None:
    """A loop beside the handlers slept for a minute, and every deploy waited half of it."""
    began = CLOCK.monotonic()

    await service.drain(30)

    assert CLOCK.monotonic() - began < 5


async def test_a_phase_is_drained_at_once_and_after_what_leans_on_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, each loop's rest was added to every stop, with every feature more."""
    supervisor, drained = service.runtime.supervisor, list[set[Phase]]()
    drain = supervisor.drain

    async def noting(loops: Sequence[Loop], seconds: float) -> None:
        drained.append({loop.phase for loop in loops})
        await drain(loops, seconds)

    monkeypatch.setattr(supervisor, "drain", noting)

    await service.drain(30)

    assert [{phase} for phase in reversed(Phase)] == drained
