"""Works bulks off, in the process that leads: a portion a second, whoever asked for them and whether or not they wait.

A replay must not be an outage: at most 50 a second of all bulks together, and none but the canary until that one has
succeeded. What the canary's end means is decided here.
"""

from __future__ import annotations

from datetime import datetime

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.dead_letters.events import BulkEnded, BulkStopped
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.ports.bulk import Bulk, Bulks, BulkState
from spoolproof.ports.dead_letters import DeadLetterRecord, DeadLetterState
from spoolproof.ports.leases import Fence
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit

_BULKS_MAX = 100  #: worked at once; the others wait for their turn
ACTOR = "spoolproof"


class BulkWorker(Loop):
    """The loop that moves dead letters while this process holds a lease."""

    name = "dead_letters.bulk"

    def __init__(self, store: Store, leadership: Holding, lease: str, *, clock: Clock) -> None:
        self._store = store
        self._bulks = store.port(Bulks)
        self._leadership = leadership
        self._lease = lease
        self._clock = clock

    async def run_once(self) -> int:
        """Move one portion if this process leads, then rest."""
        moved = 0
        fence = self._leadership.fence_for(self._lease)
        if fence is not None:
            for bulk in await self._bulks.all(_BULKS_MAX, live=True):
                moved += await self._work(bulk, limits.BULK_PER_SECOND - moved, fence)
        await self._clock.sleep(limits.BULK_REST_SECONDS)
        return moved

    async def _work(self, bulk: Bulk, limit: int, fence: Fence) -> int:
        if bulk.canary is not None and bulk.state is BulkState.CANARY:
            await self._judge(bulk, bulk.canary)
            return 0
        if limit <= 0:
            return 0
        failpoint("bulk.before_move")
        now = await self._bulks.work(bulk.id, limit, fence)
        failpoint("bulk.after_move")
        if now is None:
            return 0
        self._store.wakeup.notify()
        if now.state is BulkState.DONE and bulk.state is not BulkState.DONE:
            emit(BulkEnded(id=bulk.id, verb=bulk.verb, moved=now.moved, skipped=now.skipped, total=now.total))
        return now.moved - bulk.moved

    async def _judge(self, bulk: Bulk, canary: str) -> None:
        details = await self._store.dead_letters.get(canary)
        fault = fault_of(None if details is None else details.record, bulk, self._clock.now())
        if fault is None:
            return
        to = BulkState.STOPPED if fault else BulkState.RUNNING
        told = f"canary {canary} {fault or 'succeeded'}"
        if await self._bulks.change(bulk.id, (BulkState.CANARY,), to, ACTOR, told) and fault:
            emit(BulkStopped(id=bulk.id, verb=bulk.verb, why=told, left=bulk.total - bulk.moved - bulk.skipped))


def fault_of(canary: DeadLetterRecord | None, bulk: Bulk, now: datetime) -> str | None:
    """Return what is wrong with a canary; "" if it has succeeded, None while that is not known."""
    if canary is None or canary.state is DeadLetterState.RESOLVED:
        return ""
    if canary.state is DeadLetterState.OPEN:
        return f"failed again: {canary.error_class}: {canary.error}"[:500]
    if canary.state is DeadLetterState.DISCARDED:
        return "was discarded"
    if bulk.canary_at is None or (now - bulk.canary_at).total_seconds() < limits.CANARY_SECONDS:
        return None
    return f"did not succeed within {limits.CANARY_SECONDS:.0f} s"
