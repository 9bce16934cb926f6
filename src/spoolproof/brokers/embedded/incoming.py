"""A claimed message in the hands of a consumer, and the consumer's subscription.

Never here: the database. What a delivery's end means for its row is collected by the session and written in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from spoolproof.brokers.embedded.queues import Claim, Claimed, Verb
from spoolproof.brokers.events import ReceiverFailed
from spoolproof.brokers.given_up import Place
from spoolproof.message import Message, unpack_message
from spoolproof.ports.broker import OnIncoming
from spoolproof.telemetry.events import emit

Settle = Callable[[Claim, Verb], bool]
"""Takes the end of a claim; False when the claim may be somebody else's by now."""


class EmbeddedIncoming:
    """One message, unsettled until the first of ack, nack and reject."""

    __slots__ = ("_subscription", "claim", "dead_reason", "delivery_count", "fault", "message", "queue", "routing_key")

    def __init__(self, subscription: EmbeddedSubscription, claimed: Claimed) -> None:
        self.message, self.fault = _message_of(claimed)
        self.queue, self.dead_reason = subscription.place.origin(claimed.dead_reason, claimed.target)
        self.routing_key = claimed.routing_key
        self.delivery_count = claimed.claim.number - 1
        self.claim = claimed.claim
        self._subscription = subscription

    @property
    def is_stale(self) -> bool:
        return not self._subscription.holds(self)

    def ack(self) -> bool:
        return self._subscription.settle(self, Verb.ACK)

    def nack(self) -> bool:
        return self._subscription.settle(self, Verb.NACK)

    def reject(self) -> bool:
        return self._subscription.settle(self, Verb.REJECT)


class EmbeddedSubscription:
    """One consumer of one queue, across outages of the file."""

    def __init__(
        self, place: Place, prefetch: int, on_delivery: OnIncoming, settle: Settle, is_connected: Callable[[], bool]
    ) -> None:
        self.place = place
        self.queue = place.name
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._settle = settle
        self._is_connected = is_connected
        self._is_cancelled = False
        self._unsettled: set[EmbeddedIncoming] = set()

    @property
    def is_active(self) -> bool:
        return self._is_connected() and not self._is_cancelled

    @property
    def room(self) -> int:
        """How many more deliveries it takes now."""
        return 0 if self._is_cancelled else self._prefetch - len(self._unsettled)

    @property
    def is_over(self) -> bool:
        """Whether it is cancelled and holds nothing."""
        return self._is_cancelled and not self._unsettled

    async def cancel(self) -> None:
        self._is_cancelled = True

    async def give_back(self) -> None:
        self._is_cancelled = True
        for delivery in list(self._unsettled):  # a message's place is its id: the order of these says nothing
            delivery.nack()

    def deliver(self, claimed: Claimed) -> None:
        """Hand a message to the consumer, or back to its queue if it was cancelled while the claim was under way."""
        if self._is_cancelled:
            self._settle(claimed.claim, Verb.UNSEEN)
            return
        delivery = EmbeddedIncoming(self, claimed)
        self._unsettled.add(delivery)
        try:
            self._on_delivery(delivery)
        except Exception as error:  # a receiver's mistake must not stop the other consumers
            emit(ReceiverFailed(queue=self.queue), error=error)

    def holds(self, delivery: EmbeddedIncoming) -> bool:
        """Whether it is unsettled, as far as this process knows."""
        return delivery in self._unsettled

    def settle(self, delivery: EmbeddedIncoming, verb: Verb) -> bool:
        """End a delivery. False when it was settled before or its claim is lost."""
        if delivery not in self._unsettled:
            return False
        self._unsettled.discard(delivery)
        return self._settle(delivery.claim, verb)

    def forget_all(self) -> None:
        """Make every delivery stale."""
        self._unsettled.clear()


def _message_of(claimed: Claimed) -> tuple[Message, str | None]:
    try:
        message = unpack_message(
            message_id=claimed.message_id,
            type=claimed.type,
            key=claimed.ordering_key,
            meta=claimed.headers,
            body=claimed.body,
        )
    except msgspec.MsgspecError as error:  # a row of another release: a dead letter shows what is readable of it
        message = Message(
            id=claimed.message_id,
            type=claimed.type,
            source="",
            time=datetime.fromtimestamp(0, UTC),
            body=claimed.body,
            key=claimed.ordering_key,
        )
        return message, f"the stored headers cannot be read: {error}"
    return message, None
