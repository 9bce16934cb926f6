"""Sends a run of each function that is due by the clock: one message to its own queue, in the one process that leads.

Every process declares its functions every few seconds. One that a new release dropped is declared by nobody soon after
the last process of the old one has ended: it is not run any more then, and later deleted. After an outage of everything
the start declares first, so what was due meanwhile still is, and comes once.

While the broker is away nothing is sent: the runs would pile up, and what comes after an outage is one run.

Never here: running a function. A run is a message like any other: retried, kept as a dead letter, handled once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.destination import to_queue
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.membership import Holding
from spoolproof.message import Message, Outgoing
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.recurring import Recurring, RecurringRow
from spoolproof.schedules.events import RecurringForgotten, RunLate, RunUnreadable
from spoolproof.schedules.expression import next_time
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

LEAD = "promote"


class Declared:
    """The functions of a service that run by the clock: expression by queue."""

    def __init__(self) -> None:
        self.expressions: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Due:
    row: RecurringRow
    next_at: datetime
    late_seconds: float


class Runs:
    """Declares, and sends while this process holds the lease of its service; its turns are the promoter's."""

    def __init__(
        self,
        service: str,
        declared: Declared,
        recurring: Recurring,
        publisher: Publisher,
        lead: Holding,
        *,
        is_connected: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._service = service
        self._declared = declared
        self._recurring = recurring
        self._publisher = publisher
        self._lead = lead
        self._is_connected = is_connected
        self._clock = clock
        self._folded = Folded(clock)
        self._declare_at = 0.0
        self._look_at = 0.0
        self._forget_at = 0.0

    async def turn(self) -> None:
        """Declare, and send what is due. May be killed at any line. Raises StoreUnavailable."""
        if self._declared.expressions and self._clock.monotonic() >= self._declare_at:
            await self.declare()
        if self._lead.fence_for(LEAD) is not None and self._is_connected():
            await self._send()

    async def declare(self, *, is_first: bool = False) -> None:
        """Say what this process has; is_first: at a start, which is what a deploy is, its expressions count."""
        now = (await self._recurring.find(self._service)).now
        for name, expression in self._declared.expressions.items():
            next_at = next_time(expression, None, now)
            stale_seconds = 0.0 if is_first else limits.RECURRING_FRESH_SECONDS
            await self._recurring.declare(self._service, name, expression, next_at, stale_seconds=stale_seconds)
        self._declare_at = self._clock.monotonic() + limits.RECURRING_DECLARE_SECONDS

    async def _send(self) -> None:
        if self._clock.monotonic() < self._look_at:
            return
        found = await self._recurring.find(self._service)
        if not found.rows:  # most services have none: a look now and then is enough
            self._look_at = self._clock.monotonic() + limits.RECURRING_DECLARE_SECONDS
            return
        sent = 0
        for due in [due for row in found.rows if (due := self._due(row, found.now)) is not None]:
            if await self._recurring.advance(due.row, due.next_at, self._run(due.row)):
                failpoint("schedule.after_run")
                sent += 1
                if due.late_seconds > limits.SCHEDULE_LATE_SECONDS:
                    emit(RunLate(function=due.row.name, late_seconds=due.late_seconds))
        if sent:
            self._publisher.wake()
        await self._forget()

    def _due(self, row: RecurringRow, now: datetime) -> _Due | None:
        is_fresh = now - row.declared_at <= timedelta(seconds=limits.RECURRING_FRESH_SECONDS)
        if row.next_at > now or not is_fresh:
            return None
        try:
            return _Due(row, next_time(row.expression, row.next_at, now), (now - row.next_at).total_seconds())
        except Exception as error:  # a newer release's, or a time zone that is not here: its own processes lead soon
            self._folded.emit(RunUnreadable(function=row.name, expression=row.expression, error=str(error)))
            return None

    def _run(self, row: RecurringRow) -> Outgoing:
        due_at = row.next_at.isoformat()
        message = Message(
            id=f"{row.name}@{due_at}",  # the same for the same time: two could not both have their effects
            type=row.name,
            source=self._service,
            time=self._clock.now(),
            body=msgspec.json.encode({"due_at": due_at}),
        )
        return Outgoing(message=message, destination=to_queue(row.name))

    async def _forget(self) -> None:
        if self._clock.monotonic() < self._forget_at:
            return
        self._forget_at = self._clock.monotonic() + limits.RECURRING_FORGOTTEN_SECONDS / 5
        for name in await self._recurring.forget(self._service, limits.RECURRING_FORGOTTEN_SECONDS):
            emit(RecurringForgotten(function=name))
