"""What must exist in SQS and SNS, how it comes to exist, and where an event goes.

::

    <exchange>-<type> (SNS) ──raw──▶ <queue> ──received too often──▶ <queue>-dead
                        └─ cannot be delivered ──▶ <service>-unrouted
    <service>-delay ──▶ <queue>.fifo    (only with FIFO queues, which have no delay per message)

A topic for each type, not one with filters: SNS says that a filter may take 15 minutes to have effect, and drops what
it does not let pass without a word. A topic that keeps order delivers to FIFO queues, another one to all others; an
event goes to both where both have subscribers.

SNS never returns anything, so we look ourselves: a topic without a confirmed subscription is no way to send a message.
That is looked at before the first publish and once a minute. What had been there and is gone is told, then declared
again; nothing is deleted and nothing of somebody else's is changed. A queue bound by a pattern is subscribed to a type
when this process publishes one of it; handlers name their types, and need no patterns.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

from spoolproof import limits
from spoolproof.brokers.given_up import dead_queue, unrouted_queue
from spoolproof.brokers.sqs.client import Clients, SqsError, Trouble
from spoolproof.brokers.sqs.events import SqsTrouble, SqsVanished
from spoolproof.brokers.sqs.names import Names, is_fifo
from spoolproof.brokers.topics import topic_matches
from spoolproof.clock import Clock
from spoolproof.ports.broker import Barred, QueueSpec, Returned, Topology
from spoolproof.telemetry.folding import Folded

_SID = "spoolproof"
_DEFAULT_RETENTION_SECONDS = "345600"  #: what a queue has when nobody has chosen
_REFUSALS = (Trouble.DENIED, Trouble.WRONG)  #: of this one thing: it is done without
_ROUTES_MAX = 1000
_LOOKS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Route:
    """Where a routing key goes: topics with a confirmed subscription. refusal: the outcome when there are none."""

    topics: tuple[str, ...]
    refusal: Barred | Returned
    looked_at: float


class Declarer:
    """Brings a topology into being and remembers what was not as it should be."""

    def __init__(self, topology: Topology, names: Names, clients: Clients, clock: Clock) -> None:
        self.unrouted, self.delay = unrouted_queue(topology.service), f"{topology.service}.delay"
        self._topology = topology
        self._names = names
        self._clients = clients
        self._clock = clock
        self._folded = Folded(clock)
        self._queues = {spec.name: spec for spec in topology.queues}
        self._own = [self.unrouted, *map(dead_queue, self._queues), *self._queues]
        self.has_fifo = any(map(is_fifo, self._queues))
        if self.has_fifo:
            self._own.append(self.delay)
        names.check(self._own)
        names.check_ordered([spec.name for spec in topology.queues if spec.is_ordered])
        self._root = ""  # of every ARN of a queue here
        self._urls: dict[str, str] = {}
        self._declared: set[str] = set()  # what has been there
        self._gone: set[str] = set()  # queues known to be missing
        self._routes: dict[tuple[str, str], Route] = {}
        self._looking = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._vanished: dict[str, float] = {}
        self._refused: dict[str, str] = {}

    # --- asked by others ---------------------------------------------------------------------------------------------

    def is_own(self, queue: str) -> bool:
        """Whether a queue is of this topology."""
        return queue in self._own

    def miss(self, queue: str) -> None:
        """Somebody met a queue that is not there."""
        self._urls.pop(queue, None)
        if queue in self._own:
            self._gone.add(queue)

    def forget(self, exchange: str, key: str) -> None:
        """Somebody met a topic that is not there."""
        self._routes.pop((exchange, key), None)

    async def url(self, queue: str) -> str:
        """Return the address of a queue. Raises SqsError."""
        if queue not in self._urls:
            answer = await self._clients.sqs("get_queue_url", QueueName=self._names.queue(queue))
            self._urls[queue] = answer["QueueUrl"]
        return self._urls[queue]

    async def route(self, exchange: str, key: str, *, is_fresh: bool = False) -> Route:
        """Return where a routing key goes, as it was at most a minute ago. Raises SqsError.

        is_fresh: look now.
        """
        known = self._routes.get((exchange, key))
        if known is None or is_fresh or not self._is_good(known, exchange, key):
            asked_at = self._clock.monotonic()
            async with self._looking:
                known = self._routes.get((exchange, key))
                if known is None or known.looked_at < asked_at:
                    known = await self._look(exchange, key)
                    if len(self._routes) >= _ROUTES_MAX:
                        self._routes.clear()
                    self._routes[exchange, key] = known
        return known

    def issues(self) -> list[str]:
        """Return a sentence for all that is not as it should be, or was not a few minutes ago."""
        since = self._clock.monotonic() - limits.VANISHED_KEPT_SECONDS
        self._vanished = {what: at for what, at in self._vanished.items() if at >= since}
        return [*(f"{what}; it is declared again" for what in self._vanished), *self._refused.values()]

    # --- queues ------------------------------------------------------------------------------------------------------

    async def apply(self) -> None:
        """Declare everything; what was there before is looked for first. Raises SqsError."""
        self._urls.clear()
        await self._declare_queue(self.unrouted)
        attributes = await self._attributes(self.unrouted)
        self._root = attributes["QueueArn"].removesuffix(self._names.queue(self.unrouted))
        # a queue after the one it dead-letters to
        await self._each(name for name in self._own if name not in self._queues)
        await self._each(self._queues)
        await self._look_at_bindings()

    async def check(self) -> None:
        """Declare again what is known to be missing, and look at every subscription. Raises SqsError."""
        await self._each(sorted(self._gone, key=lambda name: name in self._queues))
        await self._look_at_bindings()

    async def _each(self, names: Iterable[str]) -> None:
        async def declare(name: str) -> None:
            if await self._allowed(f"queue {name}", self._declare_queue(name)):
                await self._allowed(f"queue {name}", self._set_up(name))

        await asyncio.gather(*map(declare, names))

    async def _declare_queue(self, name: str) -> None:
        if name in self._declared and not await self._is_there(name):
            self._tell_vanished(f"queue {name} had vanished; what was in it is lost")
        try:
            # without attributes, which an existing queue may have otherwise
            attributes = {"FifoQueue": "true"} if is_fifo(name) else {}
            made = await self._clients.sqs("create_queue", QueueName=self._names.queue(name), Attributes=attributes)
            self._urls[name] = made["QueueUrl"]
        except SqsError as error:
            if error.trouble not in _REFUSALS or not await self._is_there(name):  # perhaps somebody else has made it
                self._gone.add(name)
                raise
        self._gone.discard(name)
        self._declared.add(name)

    async def _is_there(self, name: str) -> bool:
        try:
            await self.url(name)
        except SqsError as error:
            if error.trouble is Trouble.MISSING:
                return False
            raise
        return True

    async def _set_up(self, name: str) -> None:
        """Give a queue what it lacks; leave alone what somebody has chosen otherwise."""
        found = await self._attributes(name)
        wanted = {}
        if found.get("MessageRetentionPeriod") == _DEFAULT_RETENTION_SECONDS:
            wanted["MessageRetentionPeriod"] = str(limits.SQS_RETENTION_SECONDS)
        if name == self.unrouted or name in self._queues:
            policy = json.loads(found.get("Policy") or "{}")
            statements, ours = policy.get("Statement", []), self._statement(name)
            if ours not in statements:
                others = [one for one in statements if one.get("Sid") != _SID]
                wanted["Policy"] = json.dumps({"Version": "2012-10-17", **policy, "Statement": [*others, ours]})
        if name in self._queues:
            dead = self._arn(dead_queue(name))
            count = min(self._queues[name].delivery_limit + 1, limits.SQS_RECEIVES_MAX)
            redrive = json.loads(found.get("RedrivePolicy") or "{}")
            if not redrive:
                wanted["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": count})
            elif (redrive.get("deadLetterTargetArn"), int(redrive.get("maxReceiveCount", 0))) != (dead, count):
                drift = f"used as it is, with {redrive}; planned were {count} receives, then {dead}"
                raise SqsError(Trouble.WRONG, drift)
        if wanted:
            await self._clients.sqs("set_queue_attributes", QueueUrl=await self.url(name), Attributes=wanted)

    def _statement(self, name: str) -> dict[str, Any]:
        """Return what lets the topics of our exchange send to a queue."""
        topics = self._topic_root + self._names.topics(self._topology.exchange)
        return {
            "Sid": _SID,
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": self._arn(name),
            "Condition": {"ArnLike": {"aws:SourceArn": topics}},
        }

    async def _attributes(self, name: str) -> dict[str, str]:
        url = await self.url(name)
        answer = await self._clients.sqs("get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
        return dict(answer.get("Attributes", {}))

    def _arn(self, queue: str) -> str:
        return self._root + self._names.queue(queue)

    @property
    def _topic_root(self) -> str:
        return self._root.replace(":sqs:", ":sns:")

    # --- topics ------------------------------------------------------------------------------------------------------

    async def _look_at_bindings(self) -> None:
        exchange = self._topology.exchange
        for spec in self._topology.queues:
            if spec.is_leaving:
                for key in spec.types:
                    what = f"the end of {spec.name}'s subscription to {key!r}"
                    await self._allowed(what, self._unsubscribe(spec.name, exchange, key))
        keys = {type for spec in self._topology.queues for type in spec.types if not {"*", "#"} & set(type)}
        keys |= {key for name, key in self._routes if name == exchange}
        looks = [self._allowed(f"topic of {key!r}", self.route(exchange, key, is_fresh=True)) for key in sorted(keys)]
        await asyncio.gather(*looks)

    def _is_good(self, route: Route, exchange: str, key: str) -> bool:
        age_seconds = self._clock.monotonic() - route.looked_at
        if not route.topics:
            return age_seconds < limits.TOPOLOGY_REPAIR_SECONDS
        is_whole = not self._gone or not any(spec.name in self._gone for spec in self._bound_to(exchange, key))
        return is_whole and age_seconds < limits.TOPOLOGY_CHECK_SECONDS

    def _bound_to(self, exchange: str, key: str) -> list[QueueSpec]:
        if exchange != self._topology.exchange:
            return []
        specs = [spec for spec in self._topology.queues if not spec.is_leaving]
        return [spec for spec in specs if any(topic_matches(type, key) for type in spec.types)]

    async def _look(self, exchange: str, key: str) -> Route:
        """Look who subscribes, and subscribe our own queues that should and do not."""
        found = {kind: set(await self._subscribers(exchange, key, kind)) for kind in (False, True)}
        barred = ""
        for spec in self._bound_to(exchange, key):
            what = f"subscription of {spec.name} to {key!r}"
            if spec.name in self._gone:  # what SNS cannot deliver is lost
                barred = f"queue {spec.name} is missing; it is declared again"
            elif self._arn(spec.name) not in found[is_fifo(spec.name)]:
                self.forget(exchange, key)  # until it is there, nothing more is sent where it is missing
                if what in self._declared:
                    self._tell_vanished(f"{what} had vanished; what was published meanwhile did not reach the queue")
                if await self._allowed(what, self._subscribe(spec.name, exchange, key)):
                    found[is_fifo(spec.name)].add(self._arn(spec.name))
                    self._declared.add(what)
                else:
                    barred = self._refused[what]
            else:
                self._declared.add(what)
        topics = () if barred else tuple(self._topic(exchange, key, kind) for kind in found if found[kind])
        refusal = Barred(barred) if barred else Returned(f"no queue is subscribed to {key!r} of exchange {exchange!r}")
        return Route(topics, refusal, self._clock.monotonic())

    async def _subscribe(self, queue: str, exchange: str, key: str) -> None:
        name = self._names.topic(exchange, key, is_fifo=is_fifo(queue))
        kind = {"FifoTopic": "true"} if is_fifo(queue) else {}
        attributes = {"RawMessageDelivery": "true"}
        if not is_fifo(queue):
            attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": self._arn(self.unrouted)})
        topic = await self._clients.sns("create_topic", Name=name, Attributes=kind)
        endpoint = {"Protocol": "sqs", "Endpoint": self._arn(queue), "Attributes": attributes}
        await self._clients.sns("subscribe", TopicArn=topic["TopicArn"], ReturnSubscriptionArn=True, **endpoint)

    async def _unsubscribe(self, queue: str, exchange: str, key: str) -> None:
        own = (await self._subscribers(exchange, key, is_fifo(queue))).get(self._arn(queue))
        if own is not None:
            await self._clients.sns("unsubscribe", SubscriptionArn=own)

    async def _subscribers(self, exchange: str, key: str, kind: bool) -> dict[str, str]:
        """Return the confirmed subscriptions of a topic by endpoint; none when there is no such topic."""
        endpoints: dict[str, str] = {}
        arguments = {"TopicArn": self._topic(exchange, key, kind)}
        while True:
            try:
                page = await self._clients.sns("list_subscriptions_by_topic", **arguments)
            except SqsError as error:
                if error.trouble is Trouble.MISSING:
                    return {}
                raise
            endpoints |= {
                one["Endpoint"]: one["SubscriptionArn"]
                for one in page.get("Subscriptions", [])
                if one["SubscriptionArn"].startswith("arn:")
            }
            if not page.get("NextToken"):
                return endpoints
            arguments["NextToken"] = page["NextToken"]

    def _topic(self, exchange: str, key: str, kind: bool) -> str:
        return self._topic_root + self._names.topic(exchange, key, is_fifo=kind)

    # --- what people should know -------------------------------------------------------------------------------------

    async def _allowed(self, what: str, work: Awaitable[Any]) -> bool:
        """Do something; False when that is refused, which is told and holds up nothing else. Raises SqsError."""
        try:
            await work
        except SqsError as error:
            if error.trouble not in _REFUSALS:
                raise
            if what not in self._refused:
                self._folded.emit(SqsTrouble(what=what, error=str(error)))
            self._refused[what] = f"{what}: {error}"
            return False
        self._refused.pop(what, None)
        return True

    def _tell_vanished(self, what: str) -> None:
        self._vanished[what] = self._clock.monotonic()
        self._folded.emit(SqsVanished(what=what))
