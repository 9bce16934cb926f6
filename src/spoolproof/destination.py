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
    """events: the service's own exchange; exchange, queue: those of that name; delay: back to a queue later."""

    EVENTS = "events"
    EXCHANGE = "exchange"
    QUEUE = "queue"
    DELAY = "delay"
    UNKNOWN = "unknown"


class Destination(msgspec.Struct, frozen=True, cache_hash=True):
    """A kind and what it needs. name: of the exchange or queue; a delay's whole seconds; the text of an unknown one."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        match self.kind:
            case Kind.EVENTS:
                return self.kind
            case Kind.UNKNOWN:
                return self.name
            case _:
                return f"{self.kind}:{self.name}"

    @property
    def seconds(self) -> int:
        """How long a delay is."""
        return int(self.name)

    def unknown(self) -> EncodeError:
        """Return what a broker raises for a destination it does not know."""
        return EncodeError(
            f"destination={str(self)!r} is not known here: use events, exchange:NAME, queue:NAME or delay:SECONDS"
        )


EVENTS: Final = Destination(Kind.EVENTS)
"""The service's topic exchange, routed by type."""


def to_queue(name: str) -> Destination:
    """Return the destination of one queue."""
    return Destination(Kind.QUEUE, name)


def back_after(seconds: int) -> Destination:
    """Return the destination of a copy that comes back after a tier's seconds, to the queue its routing key names."""
    return Destination(Kind.DELAY, str(seconds))


@lru_cache(maxsize=1024)
def destination_of(text: str) -> Destination:
    """Return the destination a text names; never raises."""
    kind, _, name = text.partition(":")
    if text == Kind.EVENTS:
        return EVENTS
    if name and kind in (Kind.EXCHANGE, Kind.QUEUE):
        return Destination(Kind(kind), name)
    if kind == Kind.DELAY and name.isascii() and name.isdecimal():
        return Destination(Kind.DELAY, name)
    return Destination(Kind.UNKNOWN, text)
