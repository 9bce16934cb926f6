"""Where a message goes, as a value. Columns, documents and users hold it as text, which is parsed once, here.

Reading never fails: what a newer release wrote is UNKNOWN, keeps its text, and is refused by every broker alike, so
that one such row becomes a dead letter and holds up no other.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from spoolproof.errors import EncodeError


class Kind(StrEnum):
    """events: the service's own exchange; exchange, queue: those of that name; delay: back to a queue later; webhook:
    the endpoint of that name, whose rows no broker ever sees."""

    EVENTS = "events"
    EXCHANGE = "exchange"
    QUEUE = "queue"
    DELAY = "delay"
    WEBHOOK = "webhook"
    UNKNOWN = "unknown"


class Destination(msgspec.Struct, frozen=True, cache_hash=True):
    """A text and what it says; made by `destination_of`. name: of the exchange or queue, a delay's whole seconds."""

    text: str
    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def seconds(self) -> int:
        """How long a delay is."""
        return int(self.name)

    def unknown(self) -> EncodeError:
        """Return what a broker raises for a destination it does not know."""
        return EncodeError(
            f"destination={self.text!r} is not known here: use events, exchange:NAME, queue:NAME or delay:SECONDS"
        )


@lru_cache(maxsize=1024)
def destination_of(text: str) -> Destination:
    """Return the destination a text names; never raises."""
    kind, _, name = text.partition(":")
    if text == Kind.EVENTS:
        return Destination(text, Kind.EVENTS)
    if name and kind in (Kind.EXCHANGE, Kind.QUEUE, Kind.WEBHOOK):
        return Destination(text, Kind(kind), name)
    if kind == Kind.DELAY and name.isascii() and name.isdecimal():
        return Destination(text, Kind.DELAY, name)
    return Destination(text, Kind.UNKNOWN)


EVENTS: Final = destination_of("events")
"""The service's topic exchange, routed by type."""


def to_queue(name: str) -> Destination:
    """Return the destination of one queue."""
    return destination_of(f"queue:{name}")


def back_after(seconds: int) -> Destination:
    """Return the destination of a copy that comes back after a tier's seconds, to the queue its routing key names."""
    return destination_of(f"delay:{seconds}")


def to_endpoint(name: str) -> Destination:
    """Return the destination of one webhook endpoint."""
    return destination_of(f"webhook:{name}")
