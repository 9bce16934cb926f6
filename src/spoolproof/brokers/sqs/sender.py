"""Publishes in tens, each answered exactly once by the entry of the answer that is its own.

A request that got no answer leaves its ten unknown. One that was refused as a whole is repeated one by one, so that a
message is blamed for nothing but itself. Nothing is sent to a topic without subscription or a queue that is not there.

A delay up to 15 minutes is SQS's own. A longer one is made of several: the message carries when it is due, and whoever
receives it before that sends it on. One for a FIFO queue, which has no delays, waits in a queue of the service.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple

from spoolproof import limits
from spoolproof.brokers.barred import BarredKinds
from spoolproof.brokers.given_up import dead_queue
from spoolproof.brokers.sqs.client import Clients, SqsError, Trouble, error_of, trouble_of
from spoolproof.brokers.sqs.names import is_fifo
from spoolproof.brokers.sqs.tens import Tens
from spoolproof.brokers.sqs.topology import Declarer
from spoolproof.brokers.sqs.wire import Wire, encode
from spoolproof.clock import Clock
from spoolproof.destination import Kind, to_queue
from spoolproof.errors import BrokerUnavailable, WindowFull
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import (
    CONFIRMED,
    NACKED,
    Barred,
    Confirmed,
    PublishOutcome,
    Refused,
    Returned,
    Sink,
    Spawn,
    Topology,
    Unknown,
)

_GROUP: Final = re.compile("[!-~]{1,128}")  #: what a MessageGroupId may be


class Target(NamedTuple):
    """Where a message goes. name: of an exchange or queue, or why it goes nowhere. key: of the exchange."""

    kind: Literal["exchange", "queue", "delay", "nowhere"]
    name: str
    key: str = ""


@dataclass(eq=False, slots=True)
class Entry:
    """A publish without an answer. due: not to be seen before this, in seconds since 1970."""

    outgoing: Outgoing
    wire: Wire
    token: object
    sink: Sink
    due: float | None = None


class Sender:
    """on_trouble: told of every request that failed."""

    def __init__(
        self,
        topology: Topology,
        declarer: Declarer,
        clients: Clients,
        *,
        clock: Clock,
        spawn: Spawn,
        on_trouble: Callable[[SqsError], None],
    ) -> None:
        self._topology = topology
        self._declarer = declarer
        self._clients = clients
        self._clock = clock
        self._on_trouble = on_trouble
        self._barred = BarredKinds(clock)
        self._unanswered: set[Entry] = set()
        self._unanswered_bytes = 0
        self._tens: Tens[Target, Entry] = Tens("sqs.publish", self._send, spawn, lambda entry: entry.wire.size_bytes)
        self._changed = asyncio.Event()
        self._is_open = False

    # --- the port's half ---------------------------------------------------------------------------------------------

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        """Take one publish. See ports.broker."""
        if not self._is_open:
            raise BrokerUnavailable("not connected to SQS")
        if self.room() < 1:
            raise WindowFull(len(self._unanswered), limits.PUBLISH_WINDOW, "wait for room()")
        target, seconds = self._target_of(outgoing)
        due = self._clock.now().timestamp() + seconds if seconds else None
        self._add(target, outgoing, token, sink, due)

    def room(self) -> int:
        """Return how many submits would be taken now."""
        if not self._is_open or self._unanswered_bytes >= limits.PUBLISH_WINDOW_BYTES_MAX:
            return 0
        return max(0, limits.PUBLISH_WINDOW - len(self._unanswered))

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        """Return True as soon as room() is above 0, or False after the time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.room() < 1:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return self.room() > 0
        return True

    def issues(self) -> list[str]:
        """Return a sentence for every kind of message that is not taken."""
        return self._barred.issues()

    # --- the consumers' half -----------------------------------------------------------------------------------------

    def pass_on(self, message: Message, queue: str, due: float, sink: Sink) -> None:
        """Send a message on that came before it is due, or to a queue that is not its own. Raises EncodeError."""
        outgoing = Outgoing(message=message, destination=to_queue(queue))
        self._add(Target("delay", queue), outgoing, None, sink, due)

    def bury(self, message: Message, queue: str, reason: str, sink: Sink) -> None:
        """Send a message to the `.dead` queue of the one it is in. Raises EncodeError."""
        dead = dead_queue(queue)
        outgoing = Outgoing(message=message, destination=to_queue(dead))
        self._put(Target("queue", dead), Entry(outgoing, encode(message, dead_reason=reason), None, sink))

    # --- the broker's half -------------------------------------------------------------------------------------------

    def open(self, is_open: bool) -> None:
        """Take publishes from now on, or no more."""
        self._is_open = is_open
        self._changed.set()

    async def stop(self) -> None:
        """Wait a while for the answers that are due; what has none is unknown."""
        self.open(False)
        await self._tens.flush(limits.CLOSE_SECONDS)

    def give_up(self) -> None:
        """End what is unanswered; called when nothing of it runs any more."""
        left = list(self._unanswered)
        self._answer(left, [Unknown("the broker was stopped")] * len(left))

    # --- where to ----------------------------------------------------------------------------------------------------

    def _target_of(self, outgoing: Outgoing) -> tuple[Target, int]:
        """Return where a message goes, and after how many seconds. Raises EncodeError."""
        destination = outgoing.destination
        key = outgoing.message.type if outgoing.routing_key is None else outgoing.routing_key
        match destination.kind:
            case Kind.EVENTS:
                return Target("exchange", self._topology.exchange, key), 0
            case Kind.EXCHANGE:
                return Target("exchange", destination.name, key), 0
            case Kind.QUEUE:
                return Target("queue", destination.name), 0
            case Kind.DELAY if destination.seconds in self._topology.tiers_seconds:
                return Target("delay", key), destination.seconds
            case Kind.DELAY:
                return Target("nowhere", f"there is no delay tier of {destination.seconds} s"), 0
            case _:
                raise destination.unknown()

    def _add(self, target: Target, outgoing: Outgoing, token: object, sink: Sink, due: float | None) -> None:
        marks: dict[str, Any] = {}
        if due is not None and is_fifo(target.name):
            # `due` goes with it to the end: two copies that differ in nothing else would be one to a FIFO queue
            is_late = due <= self._clock.now().timestamp()
            marks = {"due": due} if is_late else {"due": due, "to": target.name}
            target = Target("queue", target.name) if is_late else Target("delay", self._declarer.delay)
        elif due is not None and due - self._clock.now().timestamp() > limits.SQS_DELAY_SECONDS_MAX:
            marks = {"due": due}
        wire = encode(outgoing.message, routing_key=target.key or None, **marks)
        self._put(target, Entry(outgoing, wire, token, sink, due))

    def _put(self, target: Target, entry: Entry) -> None:
        self._unanswered.add(entry)
        self._unanswered_bytes += entry.wire.size_bytes
        self._tens.add(target, entry)

    # --- send --------------------------------------------------------------------------------------------------------

    async def _send(self, target: Target, entries: Sequence[Entry]) -> None:
        outcomes: Sequence[PublishOutcome]
        try:
            outcomes = await self._ship(target, entries)
        except Exception as error:  # whatever it is: no publish is left without an answer
            known = error_of(error)
            self._on_trouble(known)
            outcomes = [_outcome_of(known)] * len(entries)
        self._answer(entries, outcomes)

    async def _ship(self, target: Target, entries: Sequence[Entry]) -> Sequence[PublishOutcome]:
        if target.kind == "nowhere":
            return [Returned(target.name)] * len(entries)
        if target.kind == "exchange":
            return await self._to_topics(target, entries)
        try:
            return await self._to_queue(target.name, entries)
        except SqsError as error:
            if error.trouble is not Trouble.MISSING:
                raise
            self._declarer.miss(target.name)
            if self._declarer.is_own(target.name):
                self._on_trouble(error)
                return [Barred(f"queue {target.name} is missing; it is declared again")] * len(entries)
            if target.kind == "delay":
                lost = [replace(one, wire=encode(one.outgoing.message, to=target.name), due=None) for one in entries]
                return await self._to_queue(self._declarer.unrouted, lost)
            return [Returned(f"there is no queue {target.name}: {error}")] * len(entries)

    async def _to_topics(self, target: Target, entries: Sequence[Entry]) -> Sequence[PublishOutcome]:
        route = await self._declarer.route(target.name, target.key)
        if not route.topics:
            return [route.refusal] * len(entries)
        outcomes: Sequence[PublishOutcome] = [CONFIRMED] * len(entries)
        for topic in route.topics:
            ask = partial(self._clients.sns, "publish_batch", TopicArn=topic)
            rows = [_row(entry, "Message", is_fifo=topic.endswith(".fifo")) for entry in entries]
            try:
                answers = await _post(ask, "PublishBatchRequestEntries", rows)
            except SqsError as error:
                if error.trouble is not Trouble.MISSING:
                    raise
                self._declarer.forget(target.name, target.key)
                answers = [Barred(f"its topic has vanished; who subscribes is looked at again: {error}")] * len(entries)
            # confirmed is what every topic has; sent again, the others drop it by its id
            outcomes = [new if isinstance(old, Confirmed) else old for old, new in zip(outcomes, answers, strict=True)]
        return outcomes

    async def _to_queue(self, queue: str, entries: Sequence[Entry]) -> Sequence[PublishOutcome]:
        url = await self._declarer.url(queue)
        now = self._clock.now().timestamp()
        rows = []
        for entry in entries:
            row = _row(entry, "MessageBody", is_fifo=is_fifo(queue))
            if entry.due is not None and not is_fifo(queue):
                row["DelaySeconds"] = min(limits.SQS_DELAY_SECONDS_MAX, max(0, math.ceil(entry.due - now)))
            rows.append(row)
        return await _post(partial(self._clients.sqs, "send_message_batch", QueueUrl=url), "Entries", rows)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _answer(self, entries: Sequence[Entry], outcomes: Sequence[PublishOutcome]) -> None:
        """Tell the outcomes, in one call per sink."""
        pairs: dict[Sink, list[tuple[object, PublishOutcome]]] = {}
        for entry, outcome in zip(entries, outcomes, strict=True):
            if entry in self._unanswered:
                self._unanswered.remove(entry)
                self._unanswered_bytes -= entry.wire.size_bytes
                pairs.setdefault(entry.sink, []).append((entry.token, outcome))
                if isinstance(outcome, Barred):
                    self._barred.bar(entry.outgoing, outcome.detail)
                elif self._barred and outcome is CONFIRMED:
                    self._barred.confirm(entry.outgoing)
        self._changed.set()
        for sink, answered in pairs.items():
            sink(answered)


def _row(entry: Entry, body: str, *, is_fifo: bool) -> dict[str, Any]:
    row: dict[str, Any] = {body: entry.wire.body, "MessageAttributes": entry.wire.attributes}
    if is_fifo:
        group = entry.outgoing.message.key or entry.outgoing.message.id
        row["MessageGroupId"] = group if _GROUP.fullmatch(group) else sha256(group.encode()).hexdigest()
        row["MessageDeduplicationId"] = entry.wire.digest
    return row


async def _post(
    ask: Callable[..., Awaitable[dict[str, Any]]], parameter: str, rows: Sequence[dict[str, Any]]
) -> list[PublishOutcome]:
    """Send one batch; return the outcome of each. Raises SqsError when it failed as a whole."""
    try:
        answer = await ask(**{parameter: [{"Id": str(number), **row} for number, row in enumerate(rows)]})
    except SqsError as error:
        if error.trouble is not Trouble.WRONG:
            raise
        if len(rows) == 1:
            return [_outcome_of(error)]
        return [(await _post(ask, parameter, [row]))[0] for row in rows]
    outcomes: dict[str, PublishOutcome] = {one["Id"]: CONFIRMED for one in answer.get("Successful", [])}
    for one in answer.get("Failed", []):
        trouble = trouble_of(one.get("Code", ""))
        if trouble is Trouble.WRONG and not one.get("SenderFault"):
            trouble = Trouble.THROTTLED  # theirs, and over for this time
        outcomes[one["Id"]] = _outcome_of(SqsError(trouble, f"{one.get('Code')}: {one.get('Message', '')}"))
    return [outcomes.get(str(number), Unknown("the answer says nothing of it")) for number in range(len(rows))]


def _outcome_of(error: SqsError) -> PublishOutcome:
    """Return what a failed request means for a message in it."""
    match error.trouble:
        case Trouble.AWAY:
            return Unknown(str(error))
        case Trouble.THROTTLED:
            return NACKED
        case Trouble.WRONG:
            return Refused(400, str(error))
        case _:
            return Barred(str(error))
