"""One message in our hands, for as long as SQS keeps it from others."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from spoolproof.brokers.given_up import Place
from spoolproof.brokers.sqs.wire import Received
from spoolproof.message import Message


class Verb(StrEnum):
    """What is said of a delivery. extend is ours: it stays where it is."""

    ACK = "ack"
    NACK = "nack"
    REJECT = "reject"
    EXTEND = "extend"


class SqsIncoming:
    """See ports.broker.Incoming. valid_until: on the monotonic clock; after that it may be with somebody else."""

    __slots__ = (
        "_now",
        "_received",
        "_settle",
        "arrived_at",
        "dead_reason",
        "delivery_count",
        "handle",
        "queue",
        "routing_key",
        "valid_until",
    )

    def __init__(
        self,
        received: Received,
        place: Place,
        handle: str,
        *,
        delivery_count: int,
        arrived_at: float,
        valid_until: float,
        now: Callable[[], float],
        settle: Callable[[SqsIncoming, Verb], None],
    ) -> None:
        # what SQS moves to a dead queue itself says nothing: it was received too often
        self.queue, self.dead_reason = place.origin(received.dead_reason or "delivery_limit", received.to)
        self.routing_key = ""  # SNS does not say
        self.handle = handle
        self.delivery_count = delivery_count
        self.arrived_at = arrived_at
        self.valid_until = valid_until
        self._received = received
        self._now = now
        self._settle = settle

    @property
    def message(self) -> Message:
        return self._received.message

    @property
    def fault(self) -> str | None:
        return self._received.fault

    @property
    def is_stale(self) -> bool:
        return self._now() >= self.valid_until

    def ack(self) -> bool:
        return self._end(Verb.ACK)

    def nack(self) -> bool:
        return self._end(Verb.NACK)

    def reject(self) -> bool:
        return self._end(Verb.REJECT)

    def lapse(self) -> None:
        """It is not ours any more."""
        self.valid_until = 0.0

    def _end(self, verb: Verb) -> bool:
        if self.is_stale:
            return False
        self.lapse()
        self._settle(self, verb)
        return True
