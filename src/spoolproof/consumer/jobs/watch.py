"""Ends batches: in whatever process an item ended, and in the one that leads, for those whose last item nobody saw end.

An item may become a dead letter where its handler cannot see it: in the relay, in the broker, or because it ended its
process again and again. The one that leads finds those, so that their batch comes to an end, too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from spoolproof import limits
from spoolproof.consumer.jobs import desk
from spoolproof.consumer.jobs.events import ItemLost
from spoolproof.consumer.jobs.ledger import ItemLedger
from spoolproof.consumer.jobs.tools import Tools
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.policies.running.timeout import within
from spoolproof.ports.batches import BatchState, ItemState
from spoolproof.telemetry.events import emit

LEAD = "end"
_PAGE = 100


class Watch(Loop):
    """The loop of batches. counts: of those there are, in the process that leads."""

    name = "batches"

    def __init__(self, service: str, tools: Tools, lead: Holding, stirred: asyncio.Event) -> None:
        self._service = service
        self._tools = tools
        self._lead = lead
        self._stirred = stirred
        self._sweep_at = 0.0
        self.counts: Mapping[tuple[str, BatchState], int] = {}

    async def run_once(self) -> int:
        """Wait for an item to end, or a second, and end what is over. Raises StoreUnavailable."""
        clock = self._tools.clock
        with suppress(TimeoutError):
            await within(self._stirred.wait(), limits.BATCH_LOOK_SECONDS, clock)
        is_stirred, leads = self._stirred.is_set(), self._lead.fence_for(LEAD) is not None
        self._stirred.clear()
        if not leads:
            self.counts = {}
        elif clock.monotonic() >= self._sweep_at:
            self._sweep_at = clock.monotonic() + limits.BATCH_SWEEP_SECONDS
            await self._sweep()
            self.counts = await self._tools.batches.counts(self._service)
            is_stirred = True
        return await self._end() if is_stirred else 0

    async def drain(self) -> None:
        """End what the last handlers have left over."""
        if self._stirred.is_set():
            await self._end()

    async def _end(self) -> int:
        ids = await self._tools.batches.over(self._service, _PAGE)
        ended = [await desk.end(self._tools, id) for id in ids]
        if len(ids) == _PAGE:
            self._stirred.set()
        return len(ended)

    async def _sweep(self) -> None:
        """Write down items that were given up where no handler was."""
        before = self._tools.clock.now() - timedelta(seconds=limits.BATCH_LOST_SECONDS)
        running = await self._tools.batches.search(service=self._service, state=BatchState.RUNNING, limit=_PAGE)
        by_job: dict[str, set[str]] = defaultdict(set)
        for batch in running:
            if batch.started_at < before:
                by_job[batch.job].add(batch.id)
        for job, ids in by_job.items():
            ledger = ItemLedger(job, lambda: self._tools)
            async for (id, n), record in desk.letters_of(self._tools.store, self._service, job, ids):
                if await ledger.failed_before(record, [ItemState.PENDING]):
                    emit(ItemLost(job=job, id=id, item=str(n), error=f"{record.error_class}: {record.error}"[:200]))
