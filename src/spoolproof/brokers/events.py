"""What is told of every broker."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event


class ReceiverFailed(Event, name="broker.receiver_failed", level=ERROR, line="queue={queue}"):
    """Whoever a delivery was given to raised; it stays unsettled."""

    queue: str


class KindBarred(
    Event,
    name="broker.barred",
    level=WARNING,
    line='destination={destination} type={type} error="{error}": they wait, uncounted',
    folds=("destination", "type"),
):
    """The broker takes none of a type for a reason that lies in it; another try may succeed."""

    destination: str
    type: str
    error: str


class KindAdmitted(
    Event, name="broker.admitted", level=WARNING, line="destination={destination} type={type}: they flow again"
):
    """The broker takes a type again that it had not taken."""

    destination: str
    type: str
