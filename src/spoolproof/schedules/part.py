"""Schedules in one process: the lease of the service on them, and the loop that works under it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.broker import ConnectionState
from spoolproof.ports.recurring import Recurring
from spoolproof.ports.schedule import Schedule
from spoolproof.schedules.events import ROWS
from spoolproof.schedules.promoter import Promoter
from spoolproof.schedules.runs import LEAD, Declared, Runs
from spoolproof.telemetry.metrics import Measure


class SchedulesPart(Part):
    """Promotes what is due. It goes with the relay: whoever ships what was published ships what was scheduled."""

    def __init__(self, of: Context) -> None:
        self._lead = Holding(f"schedule/{of.service}", [LEAD], of.clock, of.fence_seconds)
        publisher = of.the(Publisher)
        self._runs = Runs(
            *(of.service, of.registrations.of(Declared), of.store.port(Recurring), publisher, self._lead),
            is_connected=lambda: of.broker.status().state is ConnectionState.CONNECTED,
            clock=of.clock,
        )
        self._promoter = Promoter(
            *(of.service, of.store.port(Schedule), of.store.outbox, publisher, self._lead, self._runs), clock=of.clock
        )

    def holdings(self) -> Sequence[Holding]:
        """Return the lead."""
        return (self._lead,)

    def loops(self) -> Sequence[Loop]:
        """Return what promotes, and sends runs."""
        return (self._promoter,)

    async def restore(self) -> None:
        """Declare what runs by the clock, before anybody looks what is declared no more."""
        await self._runs.declare(is_first=True)

    def measures(self) -> Iterable[Measure]:
        """Return how many messages are scheduled, in the process that leads."""
        return () if self._promoter.rows is None else ((ROWS, (), self._promoter.rows),)


SCHEDULES = Entry(SchedulesPart)
