"""One delivery and the channel it must be settled on.

A delivery keeps its channel object, never a number: after a channel closes its number is used again at once and tags
restart at 1, so an old tag would settle somebody else's message. The old object says it is closed; that is "stale".

An ack is only a hint to the broker: on a dying connection it is dropped without an error, and the inbox absorbs what
is then delivered again.
"""

from __future__ import annotations

from typing import Any

from spoolproof.brokers.rabbitmq.encoding import ack_frame
from spoolproof.brokers.rabbitmq.failure import WRONG_STATE_ERRORS
from spoolproof.brokers.rabbitmq.properties import Received
from spoolproof.message import Message


class ConsumeChannel:
    """A pika channel and how many of its deliveries are unsettled; closed with the last one once retired."""

    __slots__ = ("_is_retired", "pika", "unsettled")

    def __init__(self, pika: Any) -> None:
        self.pika = pika
        self.unsettled = 0
        self._is_retired = False

    def retire(self) -> None:
        """Nothing arrives here any more: close as soon as everything is settled."""
        self._is_retired = True
        self._close_if_done()

    def settled(self) -> None:
        self.unsettled -= 1
        if self._is_retired:
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self.unsettled == 0 and self.pika.is_open and self.pika.connection.is_open:
            self.pika.close()


class RabbitMQIncoming:
    """See ports.broker.Incoming."""

    __slots__ = ("_can_reject", "_channel", "_is_settled", "_received", "_tag", "dead_reason", "queue", "routing_key")

    def __init__(
        self,
        received: Received,
        queue: str,
        dead_reason: str | None,
        channel: ConsumeChannel,
        tag: int,
        routing_key: str,
        *,
        can_reject: bool,
    ) -> None:
        """can_reject: False for a queue we did not declare: a reject could drop the message; it goes back."""
        self.queue = queue
        self.dead_reason = dead_reason
        self.routing_key = routing_key
        self._received = received
        self._channel = channel
        self._tag = tag
        self._can_reject = can_reject
        self._is_settled = False
        channel.unsettled += 1

    @property
    def message(self) -> Message:
        return self._received.message

    @property
    def delivery_count(self) -> int:
        return self._received.delivery_count

    @property
    def fault(self) -> str | None:
        return self._received.fault

    @property
    def is_stale(self) -> bool:
        return self._is_settled or not self._channel.pika.is_open

    def ack(self) -> bool:
        if not self._settle():
            return False
        pika = self._channel.pika
        # packed by us: pika makes four objects a frame, which is a third of what consuming costs
        pika.connection.write(ack_frame(pika.channel_number, self._tag))
        self._channel.settled()
        return True

    def nack(self) -> bool:
        return self._give_back(is_redelivered=True)

    def reject(self) -> bool:
        return self._give_back(is_redelivered=not self._can_reject)

    def _give_back(self, *, is_redelivered: bool) -> bool:
        if not self._settle():
            return False
        try:
            self._channel.pika.basic_nack(self._tag, requeue=is_redelivered)
        except WRONG_STATE_ERRORS:
            return False
        self._channel.settled()
        return True

    def _settle(self) -> bool:
        """Note that it is settled; False if it was, or its channel is gone: then there is nothing to say."""
        if self.is_stale:
            return False
        self._is_settled = True
        return True
