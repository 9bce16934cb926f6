"""What is told of every broker."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, Event


class ReceiverFailed(Event, name="broker.receiver_failed", level=ERROR, line="queue={queue}"):
    """Whoever a delivery was given to raised; it stays unsettled."""

    queue: str
