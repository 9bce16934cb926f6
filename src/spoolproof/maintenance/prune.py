"""Deletes by age what the rules of the store's ports name, in the process that leads it.

Never inside another loop's transaction, and a bounded number of rows per turn, so that nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.ports.retention import Retention, Rule

LEADER = "leader"
PRUNE = "prune"


class Pruner(Loop):
    """The loop that prunes while this process holds the `leader/prune` lease."""

    name = "maintenance.prune"

    def __init__(
        self, retention: Retention, leadership: Holding, *, setting: Callable[[str], float], clock: Clock
    ) -> None:
        """setting: returns the value of a setting by its name."""
        self._retention = retention
        self._leadership = leadership
        self._setting = setting
        self._clock = clock
        self.stall_seconds: float | None = 3 * limits.PRUNE_SECONDS

    async def run_once(self) -> int:
        """Prune one portion if this process leads, then rest; hardly any rest while there is more."""
        deleted = 0
        if self._leadership.fence_for(PRUNE) is None:
            rest_seconds = min(limits.SEEK_SECONDS, limits.PRUNE_SECONDS)
        else:
            deleted = await self._retention.prune(self._seconds_of, limits.PRUNE_ROWS_MAX)
            failpoint("maintenance.after_prune")
            rest_seconds = 1.0 if deleted >= limits.PRUNE_ROWS_MAX else limits.PRUNE_SECONDS
        await self._clock.sleep(rest_seconds)
        return deleted

    def _seconds_of(self, rule: Rule) -> float:
        return self._setting(rule.seconds) if isinstance(rule.seconds, str) else rule.seconds
