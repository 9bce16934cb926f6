"""What is told of dead letters."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, INFO, Event


class DeadLetterCut(
    Event,
    name="dead_letter.cut",
    level=ERROR,
    line="queue={queue} id={message_id} error={error}: it is kept without {without}",
):
    """The store cannot keep all of a dead letter."""

    queue: str
    message_id: str
    error: str
    without: str


class BulkEnded(
    Event,
    name="dead_letter.bulk_ended",
    level=INFO,
    line="bulk={id} verb={verb}: {moved} of {total} moved, {skipped} had been moved by somebody else",
):
    """A bulk has come to its end."""

    id: str
    verb: str
    moved: int
    skipped: int
    total: int


class BulkStopped(
    Event,
    name="dead_letter.bulk_stopped",
    level=ERROR,
    line="bulk={id} verb={verb}: {why}; {left} are left as they are until somebody resumes it",
):
    """The canary of a bulk did not succeed."""

    id: str
    verb: str
    why: str
    left: int
