"""The consumers of one process: a worker per queue, the gates that hold them back, the bridge to the dead letters."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from spoolproof.codec import TypeRegistry
from spoolproof.consumer.around import HandleAround
from spoolproof.consumer.batch import BatchWorker
from spoolproof.consumer.bridge import Bridge
from spoolproof.consumer.claims import Claims
from spoolproof.consumer.copies import Copies
from spoolproof.consumer.dependencies import Dependencies
from spoolproof.consumer.depths import QueueDepths
from spoolproof.consumer.events import THREADS_ABANDONED
from spoolproof.consumer.execution import Execution
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.handler import Handler
from spoolproof.consumer.held import Keys
from spoolproof.consumer.holding import LEAD, HeldRuns
from spoolproof.consumer.ordered import OrderedWorker
from spoolproof.consumer.patience import Patience
from spoolproof.consumer.policy_gate import PolicyGate
from spoolproof.consumer.queues import QueueWatch
from spoolproof.consumer.records import RunRecords
from spoolproof.consumer.room import Room
from spoolproof.consumer.router import Router
from spoolproof.consumer.settings import ConsumerSettings
from spoolproof.consumer.suspects import Suspects
from spoolproof.consumer.threads import HandlerThreads
from spoolproof.consumer.worker import Worker
from spoolproof.degradation.shed import Offer, ShedGate
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.broker import QueueSpec
from spoolproof.ports.held_keys import HeldKeys
from spoolproof.ports.state import CLAIM, SUSPECT
from spoolproof.telemetry.metrics import Measure


class ConsumerPart(Part):
    """Takes deliveries of every queue that has a handler and runs them."""

    def __init__(self, of: Context) -> None:
        store, broker, settings = of.store, of.broker, of.settings.of(ConsumerSettings)
        self._router = router = of.registrations.of(Router)
        self._patience = Patience(settings.timeout_seconds, broker, of.clock)
        self.gate = Gate(store.state, clock=of.clock, spawn=of.spawn)
        self._threads = HandlerThreads(settings.threads)
        self._room = Room(store.outbox, self.gate, clock=of.clock)
        held_keys = store.port(HeldKeys)
        records = partial(_records, of, self.gate)
        execution = Execution(
            store=store,
            router=router,
            registry=of.registrations.of(TypeRegistry),
            publisher=of.the(Publisher),
            copies=Copies(broker, clock=of.clock),
            gate=self.gate,
            patience=self._patience,
            room=self._room,
            threads=self._threads,
            dependencies=of.registrations.of(Dependencies),
            around=of.registrations.of(HandleAround),
            clock=of.clock,
            ids=of.ids,
            random=of.random,
            host=socket.gethostname(),
            suspects=Suspects(records(SUSPECT)),
            keys=Keys(held_keys, router, clock=of.clock, ids=of.ids),
            claims=Claims(records(CLAIM), self.gate),
        )
        self.workers = tuple(_worker(queue, execution, of) for queue in router.queues)
        offer = of.registrations.of(Offer)
        self._gates = [gate for worker in self.workers if (gate := self._policy_gate(worker, offer)) is not None]
        self._bridge = Bridge(
            *((*router.queues, *router.former), store.dead_letters, store.transaction, broker, self.gate),
            clock=of.clock,
            ids=of.ids,
        )
        self._lead = Holding(f"held/{of.service}", [LEAD], of.clock, of.fence_seconds)
        holding = [queue for queue in router.queues if router.holds_keys(queue)]
        others = [queue for queue in router.queues if queue not in holding]
        self._held = HeldRuns(*(holding, held_keys, store, execution, self._lead, of.clock), others=others)
        types = {spec.name: spec.types for spec in router.specs()}
        self._watch = QueueWatch(of.service, types, store.state, store.leases, broker, clock=of.clock)
        self._depths = QueueDepths(tuple(types), broker, clock=of.clock)

    def queues(self) -> Sequence[QueueSpec]:
        """Return a queue for each that has handlers."""
        return self._router.specs()

    def holdings(self) -> Sequence[Holding]:
        """Return the lease of whoever runs what was held."""
        return (self._lead,) if self.workers else ()

    def loops(self) -> Sequence[Loop]:
        """Return the watch over queues that nobody reads, the bridge, the gates and every lane."""
        if not self.workers:
            return (self._watch,)
        lanes = (lane for worker in self.workers for lane in worker.lanes)
        return [self._watch, self._depths, self._bridge, *self._gates, self._held, *lanes]

    async def begin_drain(self) -> None:
        """Take no new delivery and hand back what no lane has started."""
        self.gate.drain()
        self._held.begin_drain()
        for worker in self.workers:
            await worker.begin_drain()

    def report(self) -> Report:
        """Tell whether handlers are held back, and which queues the broker does not deliver from."""
        issues = [*self._held.issues(), *(gate.issue for gate in self._gates), self._threads.issue]
        return Report(
            is_gate_shut=self.gate.shut_reason is not None,
            without_room=self._room.waiting,
            unsubscribed=tuple(worker.queue for worker in self.workers if not worker.is_subscribed),
            issues=(*(issue for issue in issues if issue is not None), *self._watch.issues()),
        )

    def measures(self) -> Iterable[Measure]:
        """Return the workers', and the threads that nobody waits for any more."""
        is_gate_shut = self.gate.shut_reason is not None
        for worker in self.workers:
            yield from worker.measures(is_gate_shut=is_gate_shut)
        yield from self._depths.measures()
        yield from ((THREADS_ABANDONED, (name,), count) for name, count in self._threads.abandoned.items())

    def ended(self) -> None:
        """Let the threads end."""
        self._threads.close()

    def _policy_gate(self, worker: Worker, offer: Offer) -> PolicyGate | None:
        handler = self._router.handlers(worker.queue)[0]
        if not _is_gated(handler):
            return None
        shed = () if handler.criticality == "critical_plus" else (ShedGate(offer, handler.criticality),)
        return PolicyGate(
            *(worker.queue, (*handler.gates, *shed), worker),
            concurrency=handler.concurrency,
            prefetch=handler.prefetch,
            hold_seconds=lambda: self._patience.hold_seconds,
        )


def _records(of: Context, gate: Gate, kind: str) -> RunRecords:
    store = of.store
    return RunRecords(kind, store.state, store.leases, gate, of.process_id, clock=of.clock, spawn=of.spawn)


def _is_gated(handler: Handler) -> bool:
    return bool(handler.gates) or handler.criticality != "critical_plus"


def _worker(queue: str, execution: Execution, of: Context) -> Worker:
    handler = of.registrations.of(Router).handlers(queue)[0]  # those of one queue agree, the router saw to it
    kind: type[Worker] = OrderedWorker if handler.is_ordered else Worker
    options: dict[str, Any] = {}
    if handler.batch is not None:
        kind, options = BatchWorker, {"batch": handler.batch, "batch_seconds": handler.batch_seconds}
    return kind(
        queue,
        execution,
        of.broker,
        concurrency=handler.concurrency,
        prefetch=handler.prefetch,
        is_gated=_is_gated(handler),
        formerly=of.registrations.of(Router).former_of(queue),
        clock=of.clock,
        spawn=of.spawn,
        **options,
    )


CONSUMER = Entry(ConsumerPart)
