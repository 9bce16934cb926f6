"""What is told of the relay."""

from __future__ import annotations

from spoolproof import limits
from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge, histogram

PUBLISHED = counter(
    "relay_published_total",
    "Rows the broker was given, by its answer: confirmed, returned, nacked, barred, refused, unknown, or encode.",
    *("destination", "outcome"),
)
CONFIRM_SECONDS = histogram("relay_confirm_seconds", "From a publish to its confirm.")
IN_FLIGHT = gauge("relay_in_flight", "Publishes without an answer yet.")
PAUSED = gauge("relay_paused_destinations", "Destinations, and types of one, that are left alone for a while.")

_DELAYS = limits.UNROUTABLE_DELAYS_SECONDS


class RelayReturned(
    Event,
    name="relay.returned",
    level=WARNING,
    line="type={type} destination={destination} id={id} error={error}: no queue is bound for this type; it is tried "
    f"for {sum(_DELAYS) / 60:.0f} minutes, this was attempt {{attempt}} of {len(_DELAYS) + 1}, and is then a dead "
    "letter; start a service that handles it, or declare it with @event(…, may_be_unrouted=True)",
    folds=("destination", "type"),
):
    """A row came back: for those who do not know yet that nobody subscribes."""

    type: str
    destination: str
    id: str
    error: str
    attempt: int


class RelayNacked(Event, name="relay.nacked", level=WARNING, line="destination={destination}", folds=("destination",)):
    """The broker took no more for a destination; it rests for a while."""

    destination: str


class RelayGaveUp(Event, name="relay.given_up", level=ERROR, line="id={id} reason={reason} error={error}"):
    """A row cannot be delivered; it is a dead letter now."""

    id: str
    reason: str
    error: str


class ScheduleCancelled(
    Event, name="schedule.cancelled", line="id={id} service={service}", counter="schedule_cancelled_total"
):
    """A scheduled message was taken back; with a transaction, when that commits."""

    id: str
    service: str
