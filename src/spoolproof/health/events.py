"""What is told of the health endpoint and of what probes see."""

from __future__ import annotations

from spoolproof.telemetry.events import DEBUG, ERROR, WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge, histogram

EVENT_LOOP_LAG = histogram("event_loop_lag_seconds", "How late a timer of the event loop is; one look a second.")
CONNECTION_STATE = gauge("connection_state", "1 for the state a dependency is in, else 0.", "dependency", "state")
CONNECTION_LOST = counter("connection_lost_total", "How often a dependency was lost.", "dependency")
CONNECTION_LOST_AT = gauge("connection_lost_timestamp_seconds", "When a dependency was last lost.", "dependency")
BROKER_CONNECTION_STATE = gauge(
    "broker_connection_state",
    "1 for the state a connection to the broker is in, else 0.",
    *("connection", "state"),
)
BROKER_BLOCKED = counter("broker_blocked_seconds_total", "For how long the broker has read no publishes.")
OUTBOX_ROWS = gauge("outbox_rows", "Rows that wait, up to 100,000; told by one process of the service.")
OUTBOX_OLDEST = gauge("outbox_oldest_timestamp_seconds", "When the oldest row was written; missing without rows.")
OUTBOX_UNOWNED = gauge("outbox_unowned_shards", "Shards that nobody ships; told by one process of the service.")
DEAD_LETTERS_OLDEST = gauge(
    "dead_letters_oldest_timestamp_seconds", "When the oldest open dead letter first failed; missing without any."
)
DEAD_LETTERS = gauge("dead_letters", "Dead letters by state, up to 100,000 each; told by one process.", "state")


DEPENDENCY_STATE = gauge("dependency_state", "1 for the status a dependency is in, else 0.", "dependency", "state")
DEPENDENCY_ERRORS = gauge("dependency_error_ratio", "Failed calls of all of the last minute.", "dependency")
DEPENDENCY_RESPONSE = gauge(
    "dependency_response_seconds",
    "How long calls take that succeed, of those of the last minute that were measured.",
    *("dependency", "quantile"),
)


class DependencyChanged(
    Event,
    name="dependency.changed",
    line="dependency={dependency} old={old} new={new} seconds={seconds:.1f} reason={reason}",
    counter="dependency_changes_total",
    labels=("dependency", "new"),
):
    """What a policy protects is better or worse than before."""

    dependency: str
    old: str
    new: str
    seconds: float
    reason: str


class HealthListening(Event, name="health.listening", line="url={url}"):
    """Probes are answered from now on."""

    url: str


class HealthUnready(
    Event, name="health.unready", level=WARNING, line="reason={reason}: probes are told to send no work here"
):
    """Readiness has failed."""

    reason: str


class HealthReady(Event, name="health.ready", level=WARNING, line="seconds={seconds:.1f}: work may come again"):
    """Readiness is back."""

    seconds: float


class SampleFailed(Event, name="health.sample_failed", level=DEBUG, line="error={error}"):
    """What waits could not be counted; the ping says why."""

    error: str


class SnapshotFailed(Event, name="health.snapshot_failed", level=ERROR, line="the last one stands"):
    """A snapshot could not be made: a bug of ours or of a part."""


class HealthFailed(Event, name="health.failed", level=ERROR, line="error={error}", folds=("error",)):
    """The thread of the health endpoint met what nobody expects; it goes on."""

    error: str


class CannotAccept(
    Event, name="health.cannot_accept", level=WARNING, line="error={error}: answering one probe at a time"
):
    """The process is out of file descriptors."""

    error: str


class RequestFailed(Event, name="health.request_failed", level=DEBUG, line="error={error}"):
    """A caller hung up, or was cut off."""

    error: str
