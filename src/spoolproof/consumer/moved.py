"""A delivery from a queue that a handler had before, as one of the queue it has now.

Its inbox row, its copies and its dead letter are then those of the new queue: a redelivery of the same event through
either of them is a duplicate.
"""

from __future__ import annotations

from spoolproof.message import Message
from spoolproof.ports.broker import Incoming


class Moved:
    """Implements `ports.broker.Incoming` around a delivery, but for its queue."""

    def __init__(self, inner: Incoming, queue: str) -> None:
        self._inner = inner
        self.queue = queue
        self.message: Message = inner.message
        self.routing_key = inner.routing_key
        self.delivery_count = inner.delivery_count
        self.fault = inner.fault
        self.dead_reason = inner.dead_reason

    @property
    def is_stale(self) -> bool:
        """See the port."""
        return self._inner.is_stale

    def ack(self) -> bool:
        """See the port."""
        return self._inner.ack()

    def nack(self) -> bool:
        """See the port."""
        return self._inner.nack()

    def reject(self) -> bool:
        """See the port."""
        return self._inner.reject()
