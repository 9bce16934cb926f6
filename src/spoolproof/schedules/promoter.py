"""Moves what is due to the outbox, in the one process of a service that leads.

The lease is for economy: two processes that promote at once share the rows out, and none is moved twice. A full outbox
takes no more from here, so that what is scheduled waits where it is safe; it is late then, and that is told.

Never here: publishing. What was moved is the relay's.
"""

from __future__ import annotations

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.lifecycle.membership import Holding
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.outbox import Outbox
from spoolproof.ports.schedule import Schedule
from spoolproof.schedules.events import LATE_SECONDS, SchedulePromoted
from spoolproof.schedules.runs import LEAD, Runs
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER


class Promoter(Loop):
    """The loop that promotes while this process holds the lease of its service, and gives the runs their turns."""

    name = "schedules.promoter"
    phase = Phase.SHIP

    def __init__(
        self,
        service: str,
        schedule: Schedule,
        outbox: Outbox,
        publisher: Publisher,
        lead: Holding,
        runs: Runs,
        *,
        clock: Clock,
    ) -> None:
        self._service = service
        self._schedule = schedule
        self._outbox = outbox
        self._publisher = publisher
        self._lead = lead
        self._runs = runs
        self._clock = clock
        self._late = METER.spread(LATE_SECONDS)
        self._count_at = 0.0
        self.rows: int | None = None  #: of the service, as of the last count; None while another process counts

    async def run_once(self) -> int:
        """Move one portion if this process leads, then rest; not at all while there is more. May be killed at any
        line. Raises StoreUnavailable."""
        rows = 0
        if self._lead.fence_for(LEAD) is None:
            self.rows = None
        else:
            rows = await self._promote()
            await self._count_when_due()
        await self._runs.turn()
        if rows < limits.SCHEDULE_ROWS_MAX:
            await self._clock.sleep(limits.SCHEDULE_SECONDS)
        return rows

    async def _promote(self) -> int:
        if not await self._outbox.has_room(limits.SCHEDULE_ROWS_MAX):
            return 0
        promotion = await self._schedule.promote(self._service, limits.SCHEDULE_ROWS_MAX)
        if promotion.rows:
            failpoint("schedule.after_promote")
            self._publisher.wake()
            self._late.observe(promotion.late_seconds)
            if promotion.late_seconds > limits.SCHEDULE_LATE_SECONDS:
                emit(SchedulePromoted(rows=promotion.rows, late_seconds=promotion.late_seconds))
        return promotion.rows

    async def _count_when_due(self) -> None:
        now = self._clock.monotonic()
        if self.rows is None or now >= self._count_at:
            self._count_at = now + limits.HEALTH_SAMPLE_SECONDS
            self.rows = await self._schedule.count(self._service)
