"""What is told of schedules."""

from __future__ import annotations

from spoolproof.telemetry.events import WARNING, Event
from spoolproof.telemetry.metrics import gauge, histogram

ROWS = gauge("scheduled_rows", "Messages of the service that are not due yet; told by the process that promotes them.")
LATE_SECONDS = histogram("scheduled_late_seconds", "How long what was promoted had been due; the oldest of a portion.")


class SchedulePromoted(
    Event,
    name="schedule.promoted",
    level=WARNING,
    line="rows={rows} late_seconds={late_seconds:.1f}: scheduled messages went out late; the store was "
    "away, every process of the service, or the outbox was full",
):
    """What was scheduled is on its way, later than it should be."""

    rows: int
    late_seconds: float


class RunLate(
    Event,
    name="schedule.run_late",
    level=WARNING,
    line="function={function} late_seconds={late_seconds:.0f}: store, broker or every process was away; all "
    "that was missed is this one run",
    folds=("function",),
):
    """A function that runs by the clock runs later than it should."""

    function: str
    late_seconds: float


class RunUnreadable(
    Event,
    name="schedule.run_unreadable",
    level=WARNING,
    line="function={function} expression={expression!r} error={error}: left to a process that can read it",
    folds=("function",),
):
    """A row of another release says when to run in a way that this process does not know."""

    function: str
    expression: str
    error: str


class RecurringForgotten(
    Event, name="schedule.forgotten", line="function={function}: no process has this function any more"
):
    """A function that ran by the clock is gone, and with it when it would have run next."""

    function: str
