"""What is told of alerts."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge

ALERTS = gauge("alerts", "Alerts by severity and state, told by the process that judges.", "alert", "severity", "state")
NOTIFICATIONS = counter(
    "alert_notifications_total", "Notifications by sink and outcome: sent, failed, or given_up.", "sink", "outcome"
)
PROCESS_EXITS = counter(
    "process_exits_total", "Processes that ended, drained or crashed; counted by the process that judges.", "reason"
)
CLOCK_SKEW = gauge("clock_skew_seconds", "By how much the clock of this machine and the database's differ.")


class AlertFired(Event, name="alert.fired", level=WARNING, line="{alert} severity={severity}: {what} {safe} {remedy}"):
    """Something is wrong, for as long as its rule asks."""

    alert: str
    severity: str
    what: str
    safe: str
    remedy: str


class AlertResolved(
    Event, name="alert.resolved", level=WARNING, line="{alert} severity={severity} seconds={seconds:.0f}"
):
    """It is well again, for as long as its rule asks."""

    alert: str
    severity: str
    seconds: float


class AlertUndelivered(
    Event,
    name="alert.undelivered",
    level=WARNING,
    line="sink={sink} error={error}: it is tried again for a day; spoolproof alert test",
    folds=("sink",),
):
    """A sink did not take a notification."""

    sink: str
    error: str


class AlertDelivered(Event, name="alert.delivered", level=WARNING, line="sink={sink}: it takes notifications again"):
    """A sink that had failed has taken one."""

    sink: str


class AlertGivenUp(
    Event,
    name="alert.given_up",
    level=ERROR,
    line="sink={sink} alert={alert}: nobody was told in a day; this line is all",
):
    """A notification could not be delivered."""

    sink: str
    alert: str


class AlertRowUnreadable(
    Event, name="alert.row_unreadable", level=WARNING, line="row={row} error={error}: passed over", folds=("row",)
):
    """A row of another release, or a damaged one."""

    row: str
    error: str


class ProcessCrashed(
    Event, name="process.crashed", level=ERROR, line="id={id} host={host} pid={pid}: its lease ran out without a drain"
):
    """A process of this service has ended as none should."""

    id: str
    host: str
    pid: int
