"""Escalates what nobody decided in time, and counts, in the one process of a service that leads.

The lease is for economy: an item is escalated under the lock of its row, and only while it is due.
"""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.ports.reviews import ReviewCount, ReviewFilter, Reviews
from spoolproof.ports.store import Store
from spoolproof.review.chain import followed
from spoolproof.review.events import ReviewEscalated
from spoolproof.review.item import escalated
from spoolproof.review.opening import SYSTEM
from spoolproof.telemetry.events import emit

LEAD = "escalate"


class Watch(Loop):
    """The loop that looks every 10 s while this process holds the lease. counts: as of the last look."""

    name = "review.watch"

    def __init__(self, service: str, store: Store, lead: Holding, *, clock: Clock) -> None:
        self._service = service
        self._store = store
        self._reviews = store.port(Reviews)
        self._lead = lead
        self._clock = clock
        self.counts: Sequence[ReviewCount] = ()

    async def run_once(self) -> int:
        """Escalate what is due and count, if this process leads; then rest. Raises StoreUnavailable."""
        raised = 0
        if self._lead.fence_for(LEAD) is None:
            self.counts = ()
        else:
            due = ReviewFilter(service=self._service, due_by=self._clock.now(), limit=limits.REVIEW_PAGE)
            for item in await self._reviews.search(due):
                raised += await self._escalate(item.id)
            self.counts = await self._reviews.counts(self._service, self._clock.now())
        await self._clock.sleep(limits.REVIEW_LOOK_SECONDS)
        return raised

    async def _escalate(self, id: str) -> bool:
        now = self._clock.now()
        async with self._store.transaction() as tx:
            found = await self._reviews.lock(tx, id)
            after = None if found is None or found.item is None else escalated(found.item, now)
            if after is None:
                return False
            detail = {"level": after.level, "priority": after.priority}
            await self._reviews.write(tx, *followed(after, "escalated", SYSTEM, now, detail))
        emit(
            ReviewEscalated(kind=after.kind, subject=after.subject, id=id, raised=after.level, priority=after.priority)
        )
        return True
