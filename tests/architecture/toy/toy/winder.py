"""Winds up every toy, in the process that leads."""

from __future__ import annotations

from collections.abc import Mapping

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.ports.toys import Toys
from spoolproof.telemetry.events import emit
from spoolproof.toy.events import ToysWound

WIND = "wind"


class Winder(Loop):
    """The loop that winds toys up while this process holds the lease on it."""

    name = "toy.winder"

    def __init__(self, toys: Toys, lead: Holding, *, seconds: float, clock: Clock) -> None:
        self._toys = toys
        self._lead = lead
        self._seconds = seconds
        self._clock = clock
        self.seen: Mapping[str, bool] = {}
        self.stall_seconds: float | None = 3 * max(seconds, limits.LOOP_STALLED_SECONDS)

    async def run_once(self) -> int:
        """Wind all up if this process leads, then rest. Raises StoreUnavailable."""
        leads = self._lead.fence_for(WIND) is not None
        if leads:
            self.seen = await self._toys.all()
            emit(ToysWound(toys=len(self.seen)))
        await self._clock.sleep(self._seconds)
        return len(self.seen) if leads else 0
