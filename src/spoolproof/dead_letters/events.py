"""What is told of dead letters."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, Event


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
