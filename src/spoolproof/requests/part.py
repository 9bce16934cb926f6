"""Requests of one process: published like any event, answered through a queue of the process's own.

The answer is published by the handler's unit of work, so it comes if and only if the handler's effects committed. The
queue is made at the first request, and the broker, or the other processes on its file, remove it when the process is no
more: nobody would read it.

A request is never part of a unit of work: its answer would wait for the commit, and the commit for the answer. Nor is
it sent while the handler that asks has a transaction open, which is never held across a broker. It expires with its
timeout, so that no handler begins what nobody waits for; one that has begun goes on, and its answer comes late. That is
told, never dropped in silence.

An answer is acked when its waiter has it. It lives in memory from there on, as who asked does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.codec import DecodeFailure, TypeRegistry
from spoolproof.errors import InvalidMessage, SettingsError, TransactionError
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.part import Part
from spoolproof.message import REPLY_TO, Message, Outgoing
from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.publish import Publisher, handling
from spoolproof.outbox.receipt import Receipt, receipt_of
from spoolproof.ports.broker import Incoming, QueueSpec
from spoolproof.requests.errors import RequestsFull, RequestTimeout
from spoolproof.requests.events import REQUESTS, REQUESTS_WAITING, AnsweredLate
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import Measure

_PREFETCH = 100
_ANSWERED_MAX = 1000  #: request ids remembered, so that an answer that comes twice is not called late
_NO_QUEUE = (
    "SPOOLPROOF_BROKER: request() needs a queue of this process's own that goes with it, which this broker does not "
    "have; use RabbitMQ or the embedded broker, or publish an event back"
)

_IN_TRANSACTION = (
    "request() in a handler with a transaction would keep that open while it waits, and on SQLite, with its one "
    "writer, keep its own answer away; ask in a handler without one, or publish an event and handle its answer"
)


class RequestsPart(Part):
    """Asks, and hears the answers."""

    needs_store = False

    def __init__(self, of: Context) -> None:
        self._publisher = of.the(Publisher)
        self._broker = of.broker
        self._clock = of.clock
        self._spec = QueueSpec(
            name=f"{of.service}.replies.{of.ids.uuid7()}",
            types=(),
            delivery_limit=limits.DELIVERY_LIMIT,
            expires_seconds=limits.REPLY_QUEUE_SECONDS,
        )
        self._listening = asyncio.Lock()
        self._is_listening = False
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._answered: dict[str, None] = {}
        self._folded = Folded(of.clock)
        self.outcomes = {"answered": 0, "timeout": 0}

    async def ask(
        self, payload: object, timeout: float | timedelta, reply: type[Any] | None, options: PublishOptions
    ) -> Any:
        """See `Service.request`."""
        seconds = _checked(timeout, options)
        if not self._broker.capabilities.has_own_queues:
            raise SettingsError([_NO_QUEUE])
        running = handling.get()
        if running is not None and running.has_transaction:
            raise TransactionError(_IN_TRANSACTION)
        if len(self._waiting) >= limits.REQUESTS_WAITING_MAX:
            raise RequestsFull(len(self._waiting), limits.REQUESTS_WAITING_MAX)
        ends_at = self._clock.monotonic() + seconds
        await self._listen()
        outgoing = self._publisher.outgoing(payload, {**options, "expires": seconds})
        headers = {**outgoing.message.headers, REPLY_TO: self._spec.name}
        outgoing = msgspec.structs.replace(outgoing, message=msgspec.structs.replace(outgoing.message, headers=headers))
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        receipt: Receipt | None = None
        try:
            receipt = await self._publisher.keep(outgoing, partial(self._store, answer))
            message = await self._answer(answer, ends_at, outgoing.message.type, receipt, seconds)
        finally:
            self._waiting.pop(outgoing.message.id if receipt is None else receipt.id, None)
        return _payload(message, outgoing.message.type, reply)

    async def _listen(self) -> None:
        async with self._listening:
            if not self._is_listening:
                await self._broker.subscribe(self._spec, _PREFETCH, self._on_answer)
                self._is_listening = True

    async def _store(self, answer: asyncio.Future[Message], outgoing: Outgoing) -> Receipt:
        self._waiting[outgoing.message.id] = answer
        return receipt_of(outgoing, await self._publisher.store([outgoing]))

    async def _answer(
        self, answer: asyncio.Future[Message], ends_at: float, type: str, receipt: Receipt, seconds: float
    ) -> Message:
        def give_up() -> None:
            if not answer.done():
                self.outcomes["timeout"] += 1
                answer.set_exception(RequestTimeout(type, receipt.id, seconds, str(receipt.place)))

        timer = self._clock.call_at(ends_at, give_up)
        try:
            return await answer
        finally:
            timer.cancel()

    def _on_answer(self, delivery: Incoming) -> None:
        message = delivery.message
        request_id = message.causation_id or ""
        answer = self._waiting.pop(request_id, None)
        if answer is not None and not answer.done():
            answer.set_result(message)
            self.outcomes["answered"] += 1
            self._answered[request_id] = None
            if len(self._answered) > _ANSWERED_MAX:
                self._answered.pop(next(iter(self._answered)))
        elif request_id not in self._answered:
            self._folded.emit(AnsweredLate(type=message.type, request_id=request_id))
        delivery.ack()

    def measures(self) -> Iterable[Measure]:
        """Return how requests ended, and how many wait."""
        yield REQUESTS_WAITING, (), len(self._waiting)
        for outcome, count in self.outcomes.items():
            yield REQUESTS, (outcome,), count

    def ended(self) -> None:
        """Let nobody wait for what can no longer come."""
        for request_id, answer in self._waiting.items():
            if not answer.done():
                answer.set_exception(RequestTimeout("a request", request_id, 0.0, "stored", "the service stopped"))


def _checked(timeout: object, options: PublishOptions) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    most = limits.REQUEST_SECONDS_MAX
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= most:
        raise InvalidMessage("timeout", timeout, f"must be seconds above 0 and at most {most:g}, or a timedelta")
    for name in ("at", "delay", "expires"):
        if options.get(name) is not None:
            raise InvalidMessage(name, options.get(name), "is no option of request(): it is sent now, for timeout=")
    return float(seconds)


def _payload(message: Message, asked: str, reply: type[Any] | None) -> Any:
    """Return what was answered. Raises CodecError if that is not what was expected."""
    if reply is None:
        return msgspec.json.decode(message.body, type=dict[str, Any])
    registry = TypeRegistry()
    name = registry.add(reply).name
    if message.type != name:
        raise DecodeFailure("unknown_type", f"{asked!r} was answered with {message.type!r}, not with {name!r}")
    return registry.decode(message, name)


REQUESTS_ENTRY = Entry(RequestsPart)
