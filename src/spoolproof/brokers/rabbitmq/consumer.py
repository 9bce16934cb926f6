"""Subscriptions on the consume connections: each on a channel of its own, each back after every loss.

Each belongs to one connection (`Lane`). When that is lost its subscriptions go to one that is left, at once, and stay
there; with none left they wait for the next.

A queue without a leader costs more than its own consumer: RabbitMQ thinks about it for a quarter of a minute, then
closes the whole connection with an internal error (541). Whoever was asking at such an end is doubtful, and is tried on
a throw-away connection until it is served there; only then does it come back to the others.

A subscription is lost with its connection, when the broker closes its channel (consumer timeout, queue missing) or
cancels the consumer (queue deleted, node gone). Then the topology is looked at first: what vanished is reported before
it is declared again, never silently. The old channel stays until what was delivered on it is settled.

After `basic_cancel` pika itself sends back what still arrives before Cancel-Ok; each costs a delivery count, so a
cancel is only for draining.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from spoolproof import limits
from spoolproof.brokers.given_up import Place, dead_queue
from spoolproof.brokers.rabbitmq.declarer import Declarer
from spoolproof.brokers.rabbitmq.events import (
    CancelUnanswered,
    DeliveryCallbackFailed,
    OddProperties,
    SubscriptionFound,
    SubscriptionLost,
)
from spoolproof.brokers.rabbitmq.incoming import ConsumeChannel, RabbitMQIncoming
from spoolproof.brokers.rabbitmq.loose import read_loosely
from spoolproof.brokers.rabbitmq.pika_internals import Connection, UnreadableProperties
from spoolproof.brokers.rabbitmq.properties import Received, from_properties, unreadable
from spoolproof.brokers.rabbitmq.rpc import ChannelClosed, RpcChannel, closed_by, guarded
from spoolproof.brokers.rabbitmq.versions import release_of
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.ports.broker import OnIncoming, Spawn
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

_NOT_FOUND = 404
_INTERNAL_ERROR = "541 "
_CONSUMER_TIMEOUT = re.compile(r"Timeout value used: (\d+) ms")
"""In the 406 with which RabbitMQ closes a channel that has kept a delivery for too long."""


class Unserved(BrokerUnavailable):
    """The broker is there and gives no answer about one queue."""


class RabbitMQSubscription:
    """See ports.broker.Subscription."""

    def __init__(self, place: Place, prefetch: int, on_delivery: OnIncoming, clock: Clock, declarer: Declarer) -> None:
        self.queue = place.name
        self._place = place
        self.is_cancelled = False
        self.last_error: str | None = None
        self.lane: Lane | None = None  #: set by whoever makes it
        self.is_opening = self.is_reopening = False
        self.is_asking = False  #: to be given the queue; the broker has not said yes
        self.is_doubtful = False  #: asking for it may end the connection
        self.prefetch = prefetch
        self._on_delivery = on_delivery
        self._clock = clock
        self._declarer = declarer
        self._rpc: RpcChannel | None = None
        self._channel: ConsumeChannel | None = None
        self._consumer_tag = ""
        self._is_lost = asyncio.Event()
        self.on_lost: Callable[[RabbitMQSubscription], None] = lambda _: None
        self.on_timeout: Callable[[float], None] = lambda _: None
        self.on_give_back: Callable[[], None] = lambda: None

    @property
    def is_active(self) -> bool:
        return self._channel is not None

    async def open(self, connection: Connection) -> None:
        """Begin to consume. Raises ChannelClosed or BrokerUnavailable."""
        rpc = await RpcChannel.open(connection)
        channel = ConsumeChannel(rpc.pika)
        rpc.pika.add_on_cancel_callback(guarded(partial(self._on_broker_cancel, channel)))
        rpc.pika.add_on_close_callback(guarded(partial(self._on_close, channel)))
        await rpc.call("basic_qos", prefetch_count=self.prefetch, global_qos=False)
        if self.is_cancelled:
            rpc.close()
            return
        # deliveries may come in the same read as Consume-Ok, so the channel is ours before the question is asked
        self._rpc, self._channel = rpc, channel
        self._consumer_tag = f"{self.queue[:200]}.{rpc.pika.channel_number}"
        self.is_asking = True
        try:
            await rpc.call(
                "basic_consume",
                queue=self.queue,
                on_message_callback=guarded(partial(self._deliver, channel)),
                consumer_tag=self._consumer_tag,
            )
        except ChannelClosed:
            self.is_asking, self._channel = False, None
            raise
        except BrokerUnavailable as error:
            self.is_asking, self._channel = False, None
            rpc.close()  # as soon as the broker answers after all
            raise Unserved(f"the broker does not give it out: {error}") from error
        self.is_asking = False
        self.last_error = None

    async def cancel(self) -> None:
        self.is_cancelled = True
        rpc, channel = self._rpc, self._channel
        self._rpc = self._channel = None
        if rpc is None or channel is None:
            return
        try:
            await rpc.call("basic_cancel", timeout_seconds=limits.CLOSE_SECONDS, consumer_tag=self._consumer_tag)
        except (ChannelClosed, BrokerUnavailable) as error:
            # without Cancel-Ok nothing more may arrive either: pika sends back what does
            emit(CancelUnanswered(queue=self.queue, error=str(error)))
        channel.retire()

    async def give_back(self) -> None:
        self.is_cancelled = True
        if self._channel is None:
            return
        # the broker answers a closed channel, as it does a cancel, by activating the next consumer before it takes back
        # what this one has: only a connection that is lost gives everything back at once, and nacks one by one do not
        self._is_lost.clear()
        self.on_give_back()
        await self._is_lost.wait()  # in one of the next turns

    def lost(self) -> None:
        """The connection is gone, and every channel with it."""
        self._is_lost.set()
        self._rpc = self._channel = None

    def _deliver(self, channel: ConsumeChannel, _pika: Any, method: Any, properties: Any, body: bytes) -> None:
        if self._channel is not channel:
            return  # given up before the broker said yes; the channel closes, and it goes back
        received = self._read(method, properties, body)
        can_reject = self.queue not in self._declarer.as_is
        # where a copy was going is what the broker routed it by
        queue, reason = self._place.origin(received.dead_reason, method.routing_key)
        delivery = RabbitMQIncoming(
            *(received, queue, reason, channel, method.delivery_tag, method.routing_key), can_reject=can_reject
        )
        try:
            self._on_delivery(delivery)
        except Exception as error:
            emit(DeliveryCallbackFailed(queue=self.queue, id=received.message.id), error=error)
            delivery.nack()

    def _read(self, method: Any, properties: Any, body: bytes) -> Received:
        now = self._clock.now()
        is_redelivered = bool(method.redelivered)
        raw = b""
        if isinstance(properties, UnreadableProperties):
            raw, properties = properties.raw, read_loosely(properties.raw)
            lost = "; ".join(properties.lost) or "nothing"
            emit(OddProperties(queue=self.queue, id=str(properties.message_id), lost=lost[:500]))
        try:
            received = from_properties(properties, body, is_redelivered=is_redelivered, now=now)
        except Exception as error:  # what foreign bytes still manage to break is that message's fault alone
            reason = f"its properties cannot be read: {error_line(error)}"
            return unreadable(raw or repr(properties).encode(), reason, body, is_redelivered=is_redelivered, now=now)
        return received

    def _on_broker_cancel(self, channel: ConsumeChannel, _frame: Any) -> None:
        if self._channel is channel:
            self._end(channel, "the broker cancelled the consumer")
            if release_of(channel.pika.connection).waits_for_cancel_ok:
                channel.pika.close()  # pika cannot say it; what is unsettled comes again
            else:
                channel.retire()

    def _on_close(self, channel: ConsumeChannel, _pika: Any, reason: BaseException) -> None:
        if self._channel is channel and not self.is_asking:  # while it asks, the answer says it
            self._end(channel, str(closed_by(reason)))

    def _end(self, channel: ConsumeChannel, reason: str) -> None:
        self._rpc = self._channel = None
        self.last_error = reason
        shown = _CONSUMER_TIMEOUT.search(reason)
        if shown is not None:
            self.on_timeout(int(shown[1]) / 1000)
        is_connected = channel.pika.connection.is_open
        if is_connected and not self.is_cancelled:
            self.on_lost(self)


class Lane:
    """The user of one consume connection."""

    def __init__(self, consumers: Consumers, abort: Callable[[str], None]) -> None:
        """abort: gives up the connection."""
        self._consumers = consumers
        self.abort = abort
        self.connection: Connection | None = None  #: while it is open and the topology was looked after

    async def opened(self, connection: Connection) -> None:
        await self._consumers.opened(self, connection)

    def lost(self, reason: str) -> None:
        self.connection = None
        self._consumers.lost(self, reason)

    def blocked(self, is_blocked: bool) -> None:
        """Never a matter here: an alarm stops only connections that publish."""


class Consumers:
    """Declares the topology, and keeps every subscription open on one of the lanes."""

    def __init__(
        self,
        declarer: Declarer,
        *,
        clock: Clock,
        spawn: Spawn,
        declared: Callable[[], None],
        try_out: Callable[[RabbitMQSubscription], Awaitable[str | None]],
    ) -> None:
        """declared: called whenever the topology was declared. try_out: consumes on a connection made for it, and
        returns why that failed, or None."""
        self.lanes: list[Lane] = []
        self._declarer = declarer
        self._clock = clock
        self._spawn = spawn
        self._declared = declared
        self._try_out = try_out
        self._trials = asyncio.Semaphore(limits.TRIALS_MAX)
        self._subscriptions: list[RabbitMQSubscription] = []
        self._folded = Folded(clock)
        self.consumer_timeout_seconds: float | None = None
        self._timed_out_at = -math.inf
        self._checked_at = -math.inf
        self._is_checking = False

    # --- connections -------------------------------------------------------------------------------------------------

    async def opened(self, lane: Lane, connection: Connection) -> None:
        if not any(one.connection for one in self.lanes):
            await self._declarer.apply(connection)
            self._declared()
            self._checked_at = self._clock.monotonic()
        lane.connection = connection
        await asyncio.gather(*(self._open(one) for one in self._subscriptions if one.lane is lane))

    def lost(self, lane: Lane, reason: str) -> None:
        """Forget the connection; open elsewhere what was open there."""
        for subscription in [one for one in self._subscriptions if one.lane is lane]:
            if subscription.is_asking and reason.startswith(_INTERNAL_ERROR):
                self._doubt(subscription, reason)
            subscription.lost()
        self._move()

    def tick(self) -> None:
        """Give a connection to whoever has none; called every second."""
        self._move()

    def check(self, after_seconds: float = limits.TOPOLOGY_REPAIR_SECONDS) -> None:
        """Look soon whether the topology is complete and declare what is not, unless that was done just now.

        after_seconds: how old the last look may be.
        """
        is_due = self._clock.monotonic() - self._checked_at >= after_seconds
        lane = self._lane()
        if lane is not None and is_due and not self._is_checking:
            self._is_checking = True
            self._spawn(self._check(lane), "rabbitmq.topology")

    async def subscribe(self, place: Place, prefetch: int, on_delivery: OnIncoming) -> RabbitMQSubscription:
        self._subscriptions = [one for one in self._subscriptions if not one.is_cancelled]
        subscription = RabbitMQSubscription(place, prefetch, on_delivery, self._clock, self._declarer)
        subscription.on_lost = self._reopen
        subscription.on_timeout = self._note_timeout
        subscription.on_give_back = partial(self._give_back, subscription)
        subscription.lane = self._lane() or self.lanes[len(self._subscriptions) % len(self.lanes)]
        self._subscriptions.append(subscription)
        await self._open(subscription)
        return subscription

    async def depth(self, queue: str) -> int | None:
        """See the port. Asked on a channel of its own: the broker closes it over a queue that is not there."""
        return await self._count("queue_declare", queue, passive=True)

    async def remove(self, queue: str) -> int:
        """See the port. Quorum queues know no `if_empty`: whoever asks has looked."""
        gone = [await self._count("queue_delete", name) or 0 for name in (queue, dead_queue(queue))]
        return sum(gone)

    async def _count(self, method: str, queue: str, **arguments: Any) -> int | None:
        lane = self._lane()
        if lane is None or lane.connection is None:
            raise BrokerUnavailable("the broker is not connected")
        try:
            asking = await RpcChannel.open(lane.connection)
            answer = await asking.call(method, queue=queue, **arguments)
        except ChannelClosed as refusal:
            if refusal.code == _NOT_FOUND:
                return None
            raise BrokerUnavailable(f"queue {queue}: {refusal}") from refusal
        asking.close()
        return int(answer.method.message_count)

    def issues(self) -> list[str]:
        """Return a sentence for every subscription the broker does not serve although it is connected."""
        if self._lane() is None:
            return []
        issues = [
            f"queue {one.queue} is not consumed: {one.last_error}"
            for one in self._subscriptions
            if not one.is_active and not one.is_cancelled and one.last_error
        ]
        if self._clock.monotonic() - self._timed_out_at < limits.VANISHED_KEPT_SECONDS:
            issues.append(
                f"the broker took back deliveries unsettled for {self.consumer_timeout_seconds:g} s, its consumer "
                "timeout: handlers and SPOOLPROOF_CONSUMER_TIMEOUT_SECONDS must stay below it, or raise it there"
            )
        return issues

    def _lane(self) -> Lane | None:
        """Return the connected lane with the fewest subscriptions, or None."""
        connected = [lane for lane in self.lanes if lane.connection is not None]
        return min(connected, key=lambda lane: sum(one.lane is lane for one in self._subscriptions), default=None)

    def _move(self) -> None:
        for subscription in self._subscriptions:
            if subscription.lane is not None and subscription.lane.connection is not None:
                continue
            lane = self._lane()
            if lane is None:
                return
            subscription.lane = lane
            if not subscription.is_opening:
                self._spawn(self._open(subscription), f"rabbitmq.move.{subscription.queue}")

    def _give_back(self, subscription: RabbitMQSubscription) -> None:
        if subscription.lane is not None:
            subscription.lane.abort(f"what is unsettled of {subscription.queue} goes back")

    def _note_timeout(self, seconds: float) -> None:
        self.consumer_timeout_seconds = min(seconds, self.consumer_timeout_seconds or math.inf)
        self._timed_out_at = self._clock.monotonic()

    async def _check(self, lane: Lane) -> None:
        connection = lane.connection
        try:
            if connection is not None:
                await self._declarer.check(connection)
        except ChannelClosed:
            return  # with its connection; the next one begins with a look of its own
        except BrokerUnavailable as error:
            if connection is lane.connection:
                lane.abort(str(error))
        finally:
            self._is_checking = False
            self._checked_at = self._clock.monotonic()

    # --- subscriptions -----------------------------------------------------------------------------------------------

    async def _open(self, subscription: RabbitMQSubscription) -> None:
        """Open now, or keep trying in the background when the broker refuses this one queue."""
        if subscription.is_opening:
            return
        while not (subscription.is_active or subscription.is_cancelled or subscription.is_doubtful):
            lane = subscription.lane
            if lane is None or lane.connection is None:
                return
            connection = lane.connection
            error = await self._ask(subscription, lane, connection)
            if error is not None and error.code and connection.is_open:
                self._reopen(subscription)
                return

    async def _ask(
        self, subscription: RabbitMQSubscription, lane: Lane, connection: Connection
    ) -> ChannelClosed | None:
        """Try to open on a connection; return the broker's refusal, and give up what does not answer."""
        subscription.is_opening = True
        try:
            await self._declarer.declare_new(connection)
            await subscription.open(connection)
            self._tell(subscription)
        except ChannelClosed as refusal:
            subscription.last_error = str(refusal)
            if connection is lane.connection and not connection.is_open:
                lane.connection = None  # its end is on the way to us
            return refusal
        except Unserved as error:
            self._doubt(subscription, str(error))
        except BrokerUnavailable as error:
            subscription.last_error = str(error)
            if connection is lane.connection:
                lane.connection = None
                lane.abort(str(error))
        finally:
            subscription.is_opening = False
        return None

    def _reopen(self, subscription: RabbitMQSubscription) -> None:
        self._tell(subscription)
        if not subscription.is_reopening:
            subscription.is_reopening = True
            self._spawn(self._reopen_until_open(subscription), f"rabbitmq.reopen.{subscription.queue}")

    def _tell(self, subscription: RabbitMQSubscription) -> None:
        """Write that nothing is taken from a queue, once a minute, and once that it is again."""
        queue, error = subscription.queue, subscription.last_error
        if error is not None:
            self._folded.emit(SubscriptionLost(queue=queue, error=error))
        elif self._folded.has_told(SubscriptionLost, queue):
            self._folded.over(SubscriptionLost, queue)
            emit(SubscriptionFound(queue=queue))

    async def _reopen_until_open(self, subscription: RabbitMQSubscription) -> None:
        """Declare what vanished and consume; a new connection takes over from here."""
        try:
            await self._reopen_while_connected(subscription)
        finally:
            subscription.is_reopening = False

    async def _reopen_while_connected(self, subscription: RabbitMQSubscription) -> None:
        lane, pause = subscription.lane, 0.0
        connection = None if lane is None else lane.connection
        while lane is not None and connection is not None and connection is lane.connection:
            await self._clock.sleep(pause)
            pause = min(limits.RESUBSCRIBE_MAX_SECONDS, max(limits.RESUBSCRIBE_FIRST_SECONDS, 2 * pause))
            if subscription.is_cancelled or subscription.is_active or subscription.is_doubtful:
                return
            try:
                await self._declarer.check(connection)
            except ChannelClosed:
                return  # with its connection
            except BrokerUnavailable as error:
                lane.abort(str(error))
                return
            if not subscription.is_opening:
                await self._ask(subscription, lane, connection)
                self._tell(subscription)

    # --- doubtful ones -----------------------------------------------------------------------------------------------

    def _doubt(self, subscription: RabbitMQSubscription, reason: str) -> None:
        subscription.last_error = f"{reason}: it has no leader, or none that this node can reach"
        if not subscription.is_doubtful:
            subscription.is_doubtful = True
            self._tell(subscription)
            self._spawn(self._try_until_served(subscription), f"rabbitmq.trial.{subscription.queue}")

    async def _try_until_served(self, subscription: RabbitMQSubscription) -> None:
        """Consume elsewhere until that works, then among the others."""
        pause = 0.0
        while not subscription.is_cancelled:
            await self._clock.sleep(pause)
            pause = min(limits.TRIAL_MAX_SECONDS, max(limits.RESUBSCRIBE_FIRST_SECONDS, 2 * pause))
            async with self._trials:
                error = await self._try_out(subscription)
            if error is None:
                subscription.is_doubtful = False
                await self._open(subscription)
                return
            self._tell(subscription)
