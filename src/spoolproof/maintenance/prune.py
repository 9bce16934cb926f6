"""Deletes inbox rows and closed dead letters by age, in the process that leads it.

Never inside another loop's transaction, and a bounded number of rows per turn, so that nothing waits for it.
"""

from __future__ import annotations

from datetime import timedelta

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.ports.state import SUSPECT
from spoolproof.ports.store import Store

LEADER = "leader"
PRUNE = "prune"


class Pruner(Loop):
    """The loop that prunes while this process holds the `leader/prune` lease."""

    name = "maintenance.prune"

    def __init__(self, store: Store, leadership: Holding, *, inbox_seconds: float, clock: Clock) -> None:
        self._store = store
        self._leadership = leadership
        self._inbox_seconds = inbox_seconds
        self._clock = clock
        self.stall_seconds: float | None = 3 * limits.PRUNE_SECONDS

    async def run_once(self) -> int:
        """Prune one portion if this process leads, then rest; hardly any rest while there is more."""
        deleted = 0
        if self._leadership.fence_for(PRUNE) is None:
            rest_seconds = min(limits.SEEK_SECONDS, limits.PRUNE_SECONDS)
        else:
            deleted = await self._store.retention.prune(
                inbox_seconds=self._inbox_seconds,
                closed_seconds=limits.CLOSED_RETENTION_SECONDS,
                limit=limits.PRUNE_ROWS_MAX,
            )
            await self._forget_suspects()
            failpoint("maintenance.after_prune")
            rest_seconds = 1.0 if deleted >= limits.PRUNE_ROWS_MAX else limits.PRUNE_SECONDS
        await self._clock.sleep(rest_seconds)
        return deleted

    async def _forget_suspects(self) -> None:
        """End the records of runs whose message never came again."""
        before = self._clock.now() - timedelta(seconds=self._inbox_seconds)
        for name, record in (await self._store.state.all(SUSPECT)).items():
            if record.updated_at < before:
                await self._store.state.remove(SUSPECT, name)
