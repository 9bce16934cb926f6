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
