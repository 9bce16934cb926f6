"""Wanted against found, by AMQP alone: no management plugin, no right but to configure.

A passive declaration says whether a thing is there. Of one that is there, a declaration with the wanted arguments
changes nothing: it is agreed to, or refused with the name of the first argument that differs. A binding can be made and
not be seen.

Never here: a deletion, or a declaration of what is missing unless that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence

from spoolproof import limits
from spoolproof.backoff import RandomSource
from spoolproof.brokers.rabbitmq.connection import BrokerConnection
from spoolproof.brokers.rabbitmq.declarer import NOT_FOUND, PRECONDITION_FAILED, Declaring
from spoolproof.brokers.rabbitmq.pika_internals import Connection
from spoolproof.brokers.rabbitmq.rpc import ChannelClosed
from spoolproof.brokers.rabbitmq.topology import ExchangePlan, QueuePlan, plan_of
from spoolproof.brokers.rabbitmq.urls import parse_urls
from spoolproof.brokers.rabbitmq.versions import Release, release_of, version_of
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.ports.broker import Spawn, Topology
from spoolproof.ports.topology import Inspection, Item
from spoolproof.telemetry.logging import silence

AS_WANTED, MISSING, DECLARED = "as wanted", "missing", "was missing, declared"
_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<name>[^']+)'.*received (?P<wanted>none|(?:the value )?'[^']*').*"
    r"current is (?P<found>none|(?:the value )?'[^']*')"
)


class _Inspector:
    """The user of a connection that only looks, and declares what is missing if told to."""

    def __init__(self, topology: Topology, attempts: Mapping[str, int], *, declares: bool) -> None:
        self._topology = topology
        self._attempts = attempts
        self._declares = declares
        self.found: Inspection | None = None

    async def opened(self, connection: Connection) -> None:
        release, declaring = release_of(connection), Declaring(connection)
        plan = plan_of(self._topology, release)
        needed: list[ExchangePlan | QueuePlan] = [*plan.exchanges, *plan.queues]
        items = [await self._look(declaring, one, release) for one in needed]
        for binding in plan.bindings if self._declares else ():
            what = f"binding of {binding.queue} to {binding.exchange}"
            refusal = await declaring.bind(binding)
            found = "made, or there already" if refusal is None else f"refused: {refusal}"
            items.append(Item(what=what, wanted=binding.key, found=found, is_drift=refusal is not None))
        declaring.close()
        unseen = [] if self._declares else [f"AMQP shows none of the {len(plan.bindings)} bindings; apply makes them"]
        self.found = Inspection(
            broker=f"RabbitMQ {version_of(connection)}",
            items=tuple(items),
            doubts=tuple(self._doubts()),
            unseen=(*unseen, f"the broker's consumer timeout, after which it {release.on_consumer_timeout}"),
        )

    def lost(self, reason: str) -> None:
        pass

    def blocked(self, is_blocked: bool) -> None:
        pass

    async def _look(self, declaring: Declaring, plan: ExchangePlan | QueuePlan, release: Release) -> Item:
        kind = "queue" if isinstance(plan, QueuePlan) else "exchange"
        what, wanted = f"{kind} {plan.name}", _shown(plan)
        name = {kind: plan.name}
        try:
            refusal = await declaring.ask(f"{kind}_declare", limits.RPC_SECONDS, **name, passive=True)
            is_missing = refusal is not None and refusal.code == NOT_FOUND
            if is_missing and not self._declares:
                return Item(what=what, wanted=wanted, found=MISSING, is_drift=True, remedy="spoolproof topology apply")
            if refusal is None or is_missing:
                refusal = await _declare(declaring, plan)
        except BrokerUnavailable as error:
            return Item(what=what, wanted=wanted, found=f"no answer: {error}", is_drift=True, remedy=_LEADERLESS)
        if refusal is None:
            return Item(what=what, wanted=wanted, found=DECLARED if is_missing else AS_WANTED)
        if refusal.code != PRECONDITION_FAILED:
            remedy = f"give the user the right to configure {plan.name!r}"
            return Item(what=what, wanted=wanted, found=f"cannot be compared: {refusal}", is_drift=True, remedy=remedy)
        return self._differing(plan, what, wanted, refusal, release)

    def _differing(
        self, plan: ExchangePlan | QueuePlan, what: str, wanted: str, refusal: ChannelClosed, release: Release
    ) -> Item:
        shown = _DIFFERENCE.search(str(refusal))
        if shown is None:
            found = str(refusal)
        else:
            name, value = shown["name"], shown["found"].removeprefix("the value ").strip("'")
            found = f"{name} is {value}"
            if name == "x-queue-type":
                found = f"not quorum: {found}"
            elif name == "x-delivery-limit":
                found += self._against_attempts(plan.name, value, release)
        return Item(what=what, wanted=wanted, found=found, is_drift=True, remedy=_remake(plan))

    def _against_attempts(self, queue: str, value: str, release: Release) -> str:
        limit = release.delivery_limit if value == "none" else int(value) if value.lstrip("-").isdigit() else None
        attempts = self._attempts.get(queue)
        if attempts is None or limit is None or limit < 0 or limit > attempts:
            return ""
        return f": at or below its {attempts} attempts ({release.counts} count), so the broker gives up before us"

    def _doubts(self) -> list[str]:
        return [
            f"queue {queue.name}: delivery limit {queue.delivery_limit} is not above its "
            f"{self._attempts[queue.name]} attempts; declare the handler with fewer"
            for queue in self._topology.queues
            if queue.delivery_limit <= self._attempts.get(queue.name, 0)
        ]


_LEADERLESS = "it may have no leader: rabbitmq-queues quorum_status NAME"


async def inspect(
    urls: Sequence[str],
    topology: Topology,
    attempts: Mapping[str, int],
    *,
    declares: bool,
    clock: Clock,
    random: RandomSource,
    spawn: Spawn,
) -> Inspection:
    """Compare what a service needs with what is there, at the first URL that answers.

    attempts: of the handlers of each queue. declares: make what is missing. Raises SettingsError, and BrokerUnavailable
    when nothing answers.
    """
    silence("pika")
    inspector = _Inspector(topology, attempts, declares=declares)
    connection = BrokerConnection(
        *("topology-0", "topology"),
        parse_urls(urls),
        inspector,
        identity=f"{topology.service}/topology",
        clock=clock,
        random=random,
        retry_first_seconds=limits.CONNECT_SECONDS,
        rounds_max=1,
        is_told=False,
    )
    work = spawn(connection.run(), "topology.broker")
    try:
        await connection.start_settled.wait()
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await connection.stop()
    if inspector.found is None or connection.start_error is not None:
        raise BrokerUnavailable(f"no broker answers: {connection.status().last_error or connection.start_error}")
    return inspector.found


async def _declare(declaring: Declaring, plan: ExchangePlan | QueuePlan) -> ChannelClosed | None:
    return await (declaring.queue(plan) if isinstance(plan, QueuePlan) else declaring.exchange(plan))


def _shown(plan: ExchangePlan | QueuePlan) -> str:
    own = ["durable"] if isinstance(plan, QueuePlan) else [plan.kind, "durable"]
    return ", ".join([*own, *(f"{name}={value}" for name, value in plan.arguments.items())])


def _remake(plan: ExchangePlan | QueuePlan) -> str:
    """Say how a person gives a thing other arguments: neither AMQP nor we can change them."""
    if isinstance(plan, ExchangePlan):
        return (
            f"stop what publishes to it; delete exchange {plan.name} (rabbitmqadmin delete exchange "
            f"name={plan.name}); spoolproof topology apply"
        )
    return (
        f"stop what publishes to it; let {plan.name} run empty, or move its messages with a shovel; "
        f"rabbitmqctl delete_queue {plan.name} --if-empty; spoolproof topology apply"
    )
