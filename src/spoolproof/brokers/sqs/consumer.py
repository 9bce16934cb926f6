"""Subscriptions: each asks for as many messages as it has room for, one long request after the other.

A message that is with a handler is kept from others by extending its visibility; when that fails it is stale, for
somebody else may have it. What is said of deliveries goes out in tens and is never waited for: an ack that does not
arrive is a redelivery, which the inbox absorbs.

A request is never cut off while it waits for messages: SQS might answer it all the same, and what it gave away would be
unseen for a visibility timeout. What arrives for a cancelled subscription goes back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from spoolproof import limits
from spoolproof.brokers.events import ReceiverFailed
from spoolproof.brokers.given_up import Place
from spoolproof.brokers.sqs.client import Clients, SqsError, Trouble, error_of
from spoolproof.brokers.sqs.events import SqsTrouble
from spoolproof.brokers.sqs.incoming import SqsIncoming, Verb
from spoolproof.brokers.sqs.sender import Sender
from spoolproof.brokers.sqs.tens import ENTRIES_MAX, Tens
from spoolproof.brokers.sqs.topology import Declarer
from spoolproof.brokers.sqs.wire import decode
from spoolproof.clock import Clock
from spoolproof.errors import EncodeError
from spoolproof.ports.broker import Confirmed, OnIncoming, PublishOutcome, Spawn
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

_EARLY_SECONDS = 0.5  #: clocks of two machines differ; this much before its time is its time


class SqsSubscription:
    """See ports.broker.Subscription."""

    def __init__(self, place: Place, prefetch: int, on_delivery: OnIncoming | None) -> None:
        """on_delivery: None for a queue whose messages are only sent on."""
        self.place = place
        self.queue = place.name
        self.on_delivery = on_delivery
        self.is_cancelled = False
        self.is_receiving = False
        self.last_error: str | None = None
        self.held: dict[str, SqsIncoming] = {}
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._prefetch = prefetch

    @property
    def is_active(self) -> bool:
        return self.is_receiving and not self.is_cancelled

    @property
    def has_ended(self) -> bool:
        """Whether nothing can arrive any more."""
        return self.task is not None and self.task.done()

    @property
    def room(self) -> int:
        """How many more messages it takes now."""
        return min(ENTRIES_MAX, self._prefetch - len(self.held))

    async def cancel(self) -> None:
        self.is_cancelled = True
        self.changed.set()

    async def give_back(self) -> None:
        await self.cancel()
        for delivery in list(self.held.values()):  # a group goes on only when none of its messages is with anybody
            delivery.nack()


class Consumers:
    """ready: returns when SQS answers. on_trouble: told of every request that failed."""

    def __init__(
        self,
        declarer: Declarer,
        clients: Clients,
        sender: Sender,
        *,
        wait_seconds: int,
        visibility_seconds: int,
        clock: Clock,
        spawn: Spawn,
        ready: Callable[[], Any],
        on_trouble: Callable[[SqsError], None],
    ) -> None:
        self._declarer = declarer
        self._clients = clients
        self._sender = sender
        self._wait_seconds = wait_seconds
        self._visibility_seconds = visibility_seconds
        self._clock = clock
        self._spawn = spawn
        self._ready = ready
        self._on_trouble = on_trouble
        self._folded = Folded(clock)
        self._subscriptions: list[SqsSubscription] = []
        self._tens: Tens[tuple[str, Verb], SqsIncoming] = Tens("sqs.settle", self._tell, spawn)

    def subscribe(self, place: Place, prefetch: int, on_delivery: OnIncoming | None) -> SqsSubscription:
        """Begin to receive, as soon as SQS answers."""
        subscription = SqsSubscription(place, prefetch, on_delivery)
        self._subscriptions = [one for one in self._subscriptions if not one.has_ended or one.held]
        self._subscriptions.append(subscription)
        subscription.task = self._spawn(self._run(subscription), f"sqs.receive.{place.name}")
        return subscription

    async def keep_held(self) -> None:
        """Extend the visibility of everything that is held, for ever."""
        while True:
            await self._clock.sleep(self._visibility_seconds / 3)
            now = self._clock.monotonic()
            for subscription in self._subscriptions:
                for delivery in list(subscription.held.values()):
                    if delivery.is_stale:
                        self._release(subscription, delivery)
                    elif now - delivery.arrived_at < limits.SQS_HELD_SECONDS_MAX:
                        self._tens.add((subscription.queue, Verb.EXTEND), delivery)

    async def stop(self) -> None:
        """Give back what is held, once no request can bring more."""
        for subscription in self._subscriptions:
            await subscription.cancel()
            if not subscription.is_receiving and subscription.task is not None:
                subscription.task.cancel()
        if tasks := [one.task for one in self._subscriptions if one.task is not None]:
            await asyncio.wait(tasks, timeout=self._wait_seconds + 1)
        for subscription in self._subscriptions:
            for delivery in list(subscription.held.values()):
                delivery.nack()
                delivery.lapse()
        await self._tens.flush(limits.CLOSE_SECONDS)

    def issues(self) -> list[str]:
        """Return a sentence for every queue that cannot be received from."""
        return [
            f"queue {one.queue} is not consumed: {one.last_error}"
            for one in self._subscriptions
            if one.last_error is not None and not one.is_cancelled
        ]

    # --- receive -----------------------------------------------------------------------------------------------------

    async def _run(self, subscription: SqsSubscription) -> None:
        pause = limits.RESUBSCRIBE_FIRST_SECONDS
        while not subscription.is_cancelled:
            if subscription.room < 1:
                subscription.changed.clear()
                await subscription.changed.wait()
                continue
            await self._ready()
            try:
                await self._receive(subscription)
                subscription.last_error = None
                pause = limits.RESUBSCRIBE_FIRST_SECONDS
            except Exception as caught:  # whatever it is: a subscription must not end without a word
                error = error_of(caught)
                subscription.is_receiving = False
                if error.trouble is Trouble.MISSING:
                    self._declarer.miss(subscription.queue)
                self._on_trouble(error)
                if error.trouble is Trouble.AWAY:
                    continue  # that is told once, not for each queue
                subscription.last_error = str(error)
                self._tell_trouble(f"receive from {subscription.queue}", error)
                await self._clock.sleep(pause)
                pause = min(2 * pause, limits.RESUBSCRIBE_MAX_SECONDS)
        subscription.is_receiving = False

    async def _receive(self, subscription: SqsSubscription) -> None:
        url = await self._declarer.url(subscription.queue)
        subscription.is_receiving = True
        asked_at = self._clock.monotonic()
        answer = await self._clients.sqs(
            "receive_message",
            QueueUrl=url,
            MaxNumberOfMessages=subscription.room,
            WaitTimeSeconds=self._wait_seconds,
            VisibilityTimeout=self._visibility_seconds,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount", "MessageGroupId"],
        )
        for raw in answer.get("Messages", []):
            self._take(subscription, raw, asked_at)

    def _take(self, subscription: SqsSubscription, raw: Mapping[str, Any], asked_at: float) -> None:
        now = self._clock.now()
        received = decode(raw, now)
        delivery = SqsIncoming(
            received,
            subscription.place,
            raw["ReceiptHandle"],
            delivery_count=int(raw.get("Attributes", {}).get("ApproximateReceiveCount", "1")) - 1,
            arrived_at=asked_at,
            valid_until=asked_at + self._visibility_seconds,
            now=self._clock.monotonic,
            settle=partial(self._settle, subscription),
        )
        subscription.held[delivery.handle] = delivery
        target = received.to or subscription.queue
        is_early = received.due is not None and received.due > now.timestamp() + _EARLY_SECONDS
        if subscription.is_cancelled:
            delivery.nack()
        elif received.due is not None and (is_early or target != subscription.queue):
            rest = partial(self._sender.pass_on, delivery.message, target, received.due)
            self._copy(subscription, delivery, rest)
        elif subscription.on_delivery is not None:
            try:
                subscription.on_delivery(delivery)
            except Exception as error:  # a receiver's mistake must not stop the others; it stays unsettled
                emit(ReceiverFailed(queue=subscription.queue), error=error)

    def _copy(
        self, subscription: SqsSubscription, delivery: SqsIncoming, send: Callable[[Callable[..., None]], None]
    ) -> None:
        """Delete a message once its copy is confirmed. If that fails it comes again, after its visibility."""
        delivery.lapse()
        self._release(subscription, delivery)

        def sink(results: Sequence[tuple[object, PublishOutcome]]) -> None:
            if any(isinstance(outcome, Confirmed) for _, outcome in results):
                self._tens.add((subscription.queue, Verb.ACK), delivery)

        try:
            send(sink)
        except EncodeError as error:
            self._tell_trouble(f"copy from {delivery.queue}", error)

    # --- settle ------------------------------------------------------------------------------------------------------

    def _settle(self, subscription: SqsSubscription, delivery: SqsIncoming, verb: Verb) -> None:
        if verb is Verb.REJECT:
            bury = partial(self._sender.bury, delivery.message, subscription.queue, "rejected")
            self._copy(subscription, delivery, bury)
        else:
            self._release(subscription, delivery)
            self._tens.add((subscription.queue, verb), delivery)

    def _release(self, subscription: SqsSubscription, delivery: SqsIncoming) -> None:
        subscription.held.pop(delivery.handle, None)
        subscription.changed.set()

    def _tell_trouble(self, what: str, error: object) -> None:
        self._folded.emit(SqsTrouble(what=what, error=str(error)))

    async def _tell(self, place: tuple[str, Verb], deliveries: Sequence[SqsIncoming]) -> None:
        """Tell SQS of up to ten deliveries of one queue."""
        queue, verb = place
        if verb is Verb.EXTEND:
            deliveries = [one for one in deliveries if not one.is_stale]  # settled since
        asked_at = self._clock.monotonic()
        try:
            failed = await self._ask(queue, verb, deliveries)
        except Exception as caught:
            error = error_of(caught)
            self._on_trouble(error)
            if verb is Verb.EXTEND:
                return  # the next turn tries again, while they are valid
            failed = dict.fromkeys(range(len(deliveries)), str(error))
        if failed:
            text = next(iter(failed.values()))
            self._tell_trouble(f"{verb.value} in {queue}, so that they come again:", text)
        if verb is Verb.EXTEND:
            for number, delivery in enumerate(deliveries):
                if number in failed:
                    delivery.lapse()
                elif not delivery.is_stale:  # settled meanwhile it stays stale
                    delivery.valid_until = max(delivery.valid_until, asked_at + self._visibility_seconds)

    async def _ask(self, queue: str, verb: Verb, deliveries: Sequence[SqsIncoming]) -> dict[int, str]:
        """Return what failed of a batch and why. Raises SqsError when all of it did."""
        if not deliveries:
            return {}
        seconds = self._visibility_seconds if verb is Verb.EXTEND else 0
        extra = {} if verb is Verb.ACK else {"VisibilityTimeout": seconds}
        entries = [{"Id": str(number), "ReceiptHandle": one.handle, **extra} for number, one in enumerate(deliveries)]
        operation = "delete_message_batch" if verb is Verb.ACK else "change_message_visibility_batch"
        url = await self._declarer.url(queue)
        answer = await self._clients.sqs(operation, QueueUrl=url, Entries=entries)
        return {int(one["Id"]): f"{one.get('Code')}: {one.get('Message', '')}" for one in answer.get("Failed", [])}
