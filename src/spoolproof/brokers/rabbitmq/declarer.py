"""How a plan comes to exist in the broker, and what was not as it should be.

What was declared and is gone later is declared again, loudly: it is looked for after every reconnect, once a minute,
and whenever a publish or a consumer misses something. A binding cannot be looked for; it is simply made again, which
costs nothing when it is there. So the queue of a service that only consumes is bound again to an exchange that another
service has made anew.

Each queue is asked about on a channel of its own, with a time limit of its own: one that does not answer keeps nobody
waiting but itself. The broker answers a question it refuses by closing the channel it was asked on.

Modes: `apply` as above; `verify` looks and tells, and declares nothing; `off` does not even look.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any, Literal

from spoolproof import limits
from spoolproof.brokers.rabbitmq.events import (
    ExchangeMissing,
    QueueMissing,
    QueueUnanswered,
    TopologyAsPlanned,
    TopologyDrifted,
    TopologyMissing,
    TopologyRefused,
)
from spoolproof.brokers.rabbitmq.pika_internals import Connection
from spoolproof.brokers.rabbitmq.rpc import ChannelClosed, RpcChannel
from spoolproof.brokers.rabbitmq.topology import BindingPlan, ExchangePlan, Plan, QueuePlan, plan_of
from spoolproof.brokers.rabbitmq.versions import release_of
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.ports.broker import QueueSpec, Spawn, Topology
from spoolproof.telemetry.events import emit

NOT_FOUND, PRECONDITION_FAILED = 404, 406
Mode = Literal["apply", "verify", "off"]


class Declarer:
    """Brings a plan into being on a connection and remembers what was not as it should be."""

    def __init__(self, topology: Topology, clock: Clock, spawn: Spawn, mode: Mode = "apply") -> None:
        self._topology = topology
        self._clock = clock
        self._spawn = spawn
        self._mode = mode
        self._lock = asyncio.Lock()  # one at a time: several subscriptions may miss their queues at once
        self._has_declared = False
        self._new: set[str] = set()  #: of this process's own queues, those that were never declared
        self._checked_at = -math.inf
        self._gone: set[str] = set()
        self._refused: dict[str, str] = {}
        self._vanished: dict[str, tuple[str, float]] = {}
        self._unanswered: set[str] = set()
        self.as_is: set[str] = set()
        """Queues that exist with other arguments than ours."""

    def issues(self) -> list[str]:
        """Return a sentence for all that is not as it should be, or was not a few minutes ago."""
        since = self._clock.monotonic() - limits.VANISHED_KEPT_SECONDS
        self._vanished = {what: kept for what, kept in self._vanished.items() if kept[1] >= since}
        silent = [f"queue {queue}: the broker does not answer about it" for queue in sorted(self._unanswered)]
        return [*(text for text, _ in self._vanished.values()), *self._refused.values(), *silent]

    async def apply(self, connection: Connection) -> None:
        """Declare everything; after a reconnect, first look what has vanished.

        Raises BrokerUnavailable, or ChannelClosed with code 0, when the connection is gone.
        """
        await self._bring(connection, looks_first=self._has_declared, declares_all=True)

    async def check(self, connection: Connection) -> None:
        """Look whether everything is still there and declare again what is not. Raises as `apply`."""
        await self._bring(connection, looks_first=True, declares_all=False)

    def add(self, own: QueueSpec) -> None:
        """Have one more queue, this process's own, from now on."""
        self._topology = replace(self._topology, queues=(*self._topology.queues, own))
        self._new.add(own.name)

    async def declare_new(self, connection: Connection) -> None:
        """Declare what was added, in every mode: nobody else can. Raises as `apply`."""
        if not self._new:
            return
        async with self._lock:
            plan, declaring = plan_of(self._topology, release_of(connection)), Declaring(connection)
            for queue in plan.queues:
                if queue.name in self._new:
                    await self._declare_queue(declaring, queue)
                    self._new.discard(queue.name)
            declaring.close()

    async def _bring(self, connection: Connection, *, looks_first: bool, declares_all: bool) -> None:
        if self._mode == "off":
            return
        asked_at = self._clock.monotonic()
        async with self._lock:
            if self._checked_at > asked_at:
                return  # somebody else has looked meanwhile
            began_at = self._clock.monotonic()
            plan = plan_of(self._topology, release_of(connection))
            declaring = Declaring(connection)
            for exchange in plan.exchanges:
                if looks_first or self._mode == "verify":
                    is_there = await self._is_there(declaring, exchange)
                if self._mode == "apply" and (declares_all or not is_there):
                    await self._declare_exchange(declaring, exchange)
            declaring.close()
            await self._bring_queues(connection, plan, looks_first=looks_first, declares_all=declares_all)
            self._checked_at = began_at
            self._has_declared = True

    async def _bring_queues(self, connection: Connection, plan: Plan, *, looks_first: bool, declares_all: bool) -> None:
        """Ask about all queues at once; those that do not answer for long go on by themselves."""
        work = {
            self._spawn(
                self._bring_queue(connection, plan, queue, looks_first=looks_first, declares_all=declares_all),
                f"rabbitmq.declare.{queue.name}",
            ): queue.name
            for queue in plan.queues
        }
        _, pending = await asyncio.wait(work, timeout=limits.DECLARE_PATIENCE_SECONDS)
        if not connection.is_open:
            raise ChannelClosed(0, "the connection was lost while the topology was declared")
        for task in pending:
            self._note_unanswered(work[task])

    async def _bring_queue(
        self, connection: Connection, plan: Plan, queue: QueuePlan, *, looks_first: bool, declares_all: bool
    ) -> None:
        declaring = Declaring(connection)
        try:
            is_there = not (looks_first or self._mode == "verify") or await self._is_there(declaring, queue)
            # of one that is there, a declaration only compares
            if (declares_all or not is_there) and (self._mode == "apply" or is_there):
                await self._declare_queue(declaring, queue)
            if self._mode == "apply":
                for binding in plan.bindings_of(queue.name):
                    await self._bind(declaring, binding)
            self._unanswered.discard(queue.name)
        except ChannelClosed:
            return  # with the connection; the next one begins with a look of its own
        except BrokerUnavailable:
            self._note_unanswered(queue.name)
        finally:
            declaring.close()

    def _note_unanswered(self, queue: str) -> None:
        if queue not in self._unanswered:
            self._unanswered.add(queue)
            emit(QueueUnanswered(queue=queue))

    async def _is_there(self, declaring: Declaring, plan: ExchangePlan | QueuePlan) -> bool:
        if plan.name in self._new:
            return False
        kind = "queue" if isinstance(plan, QueuePlan) else "exchange"
        name = {kind: plan.name}
        refusal = await declaring.ask(f"{kind}_declare", limits.RPC_SECONDS, **name, passive=True)
        if refusal is None or refusal.code != NOT_FOUND:
            self._gone.discard(plan.name)
            if self._mode == "verify":
                self._vanished.pop(plan.name, None)
            return True
        is_new = plan.name not in self._gone
        self._gone.add(plan.name)
        if self._mode == "verify":
            text = f"{kind} {plan.name} is missing, and RABBITMQ_TOPOLOGY=verify declares nothing"
            if is_new:
                emit(TopologyMissing(what=f"{kind} {plan.name}"))
        else:
            lost = "; what was in it is lost" if kind == "queue" else ", with what was bound to it"
            text = f"{kind} {plan.name} had vanished{lost}; it is declared again"
            if is_new:
                emit(QueueMissing(queue=plan.name) if kind == "queue" else ExchangeMissing(exchange=plan.name))
        self._vanished[plan.name] = (text, self._clock.monotonic())
        return False

    async def _declare_exchange(self, declaring: Declaring, plan: ExchangePlan) -> None:
        self._note(f"exchange {plan.name}", await declaring.exchange(plan))

    async def _declare_queue(self, declaring: Declaring, plan: QueuePlan) -> None:
        refusal = await declaring.queue(plan)
        self._note(f"queue {plan.name}", refusal)
        self._new.discard(plan.name)
        if refusal is not None:
            self.as_is.add(plan.name)
        else:
            self.as_is.discard(plan.name)

    async def _bind(self, declaring: Declaring, plan: BindingPlan) -> None:
        refusal = await declaring.bind(plan)
        self._note(f"binding of {plan.queue} to {plan.exchange} by {plan.key!r}", refusal)

    def _note(self, what: str, refusal: ChannelClosed | None) -> None:
        if refusal is None:
            if self._refused.pop(what, None) is not None:
                emit(TopologyAsPlanned(what=what))
        elif what not in self._refused:
            is_drift = refusal.code == PRECONDITION_FAILED
            self._refused[what] = f"{what} {'is used as it is' if is_drift else 'cannot be declared'}: {refusal}"
            emit((TopologyDrifted if is_drift else TopologyRefused)(what=what, error=str(refusal)))


class Declaring:
    """Throw-away channels to ask on, one at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: RpcChannel | None = None

    async def ask(
        self, method: str, timeout_seconds: float = limits.DECLARE_SECONDS, **arguments: Any
    ) -> ChannelClosed | None:
        """Ask; return None when the broker agreed, else its refusal. Raises BrokerUnavailable when no answer comes, and
        ChannelClosed with code 0 when the connection is gone."""
        try:
            if self._channel is None:
                self._channel = await RpcChannel.open(self._connection)
            await self._channel.call(method, timeout_seconds=timeout_seconds, **arguments)
        except ChannelClosed as refusal:
            self._channel = None
            if refusal.code == 0:
                raise
            return refusal
        return None

    async def exchange(self, plan: ExchangePlan) -> ChannelClosed | None:
        """Declare an exchange; see `ask`."""
        return await self.ask(
            "exchange_declare",
            exchange=plan.name,
            exchange_type=plan.kind,
            durable=True,
            arguments=plan.arguments or None,
        )

    async def queue(self, plan: QueuePlan) -> ChannelClosed | None:
        """Declare a queue; see `ask`."""
        return await self.ask("queue_declare", queue=plan.name, durable=True, arguments=plan.arguments)

    async def bind(self, plan: BindingPlan) -> ChannelClosed | None:
        """Bind a queue, or end that: neither is a fault to the broker where it is so already; see `ask`."""
        method = "queue_unbind" if plan.is_leaving else "queue_bind"
        return await self.ask(method, queue=plan.queue, exchange=plan.exchange, routing_key=plan.key)

    def close(self) -> None:
        """Close the channel in use, without waiting."""
        if self._channel is not None:
            self._channel.close()
