"""What is told of the health endpoint and of what probes see."""

from __future__ import annotations

from spoolproof.telemetry.events import DEBUG, ERROR, WARNING, Event


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
