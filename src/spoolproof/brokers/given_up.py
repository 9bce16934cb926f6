"""Where a broker puts what it gives up on by itself, and whose that was.

The names stay below the port: nobody above writes one. An adapter whose broker forbids them has others.
"""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof.errors import InvalidMessage
from spoolproof.message import check_short_text
from spoolproof.ports.broker import GivenUp, QueueSpec, Source


def dead_queue(queue: str) -> str:
    """Return the queue behind a queue: rejected there, or delivered too often."""
    return f"{queue}.dead"


def unrouted_queue(service: str) -> str:
    """Return the queue of a service's retry copies whose own queue is gone."""
    return f"{service}.unrouted"


@dataclass(frozen=True, slots=True)
class Place:
    """What is consumed, under the broker's own name."""

    name: str
    source: str | GivenUp

    def origin(self, reason: str | None, target: str | None) -> tuple[str, str | None]:
        """Return the queue that a delivery from here belongs to, and why the broker gave it up.

        reason: what the broker says. target: where a copy was going, which decides, and not its headers: anybody may
        have written those. One that no queue can be called is none, and the copy then belongs where it lies.
        """
        if isinstance(self.source, str):
            return self.name, None
        if self.source.queue is not None:
            return self.source.queue, reason or "unknown"
        return (target if target and _is_name(target) else self.name), "unrouted"


def place_of(source: Source, service: str) -> Place:
    """Return where a source is in the broker."""
    if isinstance(source, QueueSpec):
        return Place(source.name, source.name)
    if isinstance(source, str):
        return Place(source, source)
    return Place(unrouted_queue(service) if source.queue is None else dead_queue(source.queue), source)


def _is_name(text: str) -> bool:
    try:
        check_short_text("queue", text)
    except InvalidMessage:
        return False
    return " " not in text
