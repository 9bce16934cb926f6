"""The consumers of one process: a worker per queue, the gates that hold them back, the bridge to the dead letters."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.codec import TypeRegistry
from spoolproof.consumer.bridge import Bridge
from spoolproof.consumer.copies import Copies
from spoolproof.consumer.execution import Execution
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.patience import Patience
from spoolproof.consumer.policy_gate import PolicyGate
from spoolproof.consumer.room import Room
from spoolproof.consumer.router import Router
from spoolproof.consumer.settings import ConsumerSettings
from spoolproof.consumer.threads import HandlerThreads
from spoolproof.consumer.worker import Worker
from spoolproof.ids import Ids
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.part import Part, Report
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.broker import Broker, QueueSpec, Spawn
from spoolproof.ports.store import Store
from spoolproof.telemetry.metrics import Labels, Metric, gauge

THREADS_ABANDONED = gauge("handler_threads_abandoned", "Threads of handlers whose attempt is over.", "handler")


class ConsumerPart(Part):
    """Takes deliveries of every queue that has a handler and runs them."""

    def __init__(
        self,
        service: str,
        store: Store,
        broker: Broker,
        router: Router,
        registry: TypeRegistry,
        publisher: Publisher,
        *,
        settings: ConsumerSettings,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
        process_id: Callable[[], UUID],
        spawn: Spawn,
    ) -> None:
        self._router = router
        self._patience = Patience(settings.timeout_seconds, broker, clock)
        self.gate = Gate(store, clock=clock, spawn=spawn)
        self._threads = HandlerThreads(settings.threads)
        self._room = Room(store.outbox, self.gate, clock=clock)
        execution = Execution(
            store=store,
            router=router,
            registry=registry,
            publisher=publisher,
            copies=Copies(broker, clock=clock),
            gate=self.gate,
            patience=self._patience,
            room=self._room,
            threads=self._threads,
            clock=clock,
            ids=ids,
            random=random,
            host=socket.gethostname(),
            process_id=process_id,
        )
        self.workers = tuple(_worker(queue, execution, broker, router, clock, spawn) for queue in router.queues)
        self._gates = [gate for gate in map(self._policy_gate, self.workers) if gate is not None]
        self._bridge = Bridge(
            *(router.queues, store.dead_letters, store.transaction, broker, self.gate), clock=clock, ids=ids
        )

    def queues(self) -> Sequence[QueueSpec]:
        """Return a queue for each that has handlers."""
        return self._router.specs()

    def loops(self) -> Sequence[Loop]:
        """Return the bridge, the gates and every lane."""
        if not self.workers:
            return ()
        return [self._bridge, *self._gates, *(lane for worker in self.workers for lane in worker.lanes)]

    async def begin_drain(self) -> None:
        """Take no new delivery and hand back what no lane has started."""
        self.gate.drain()
        for worker in self.workers:
            await worker.begin_drain()

    def report(self) -> Report:
        """Tell whether handlers are held back, and which queues the broker does not deliver from."""
        issues = [*(gate.issue for gate in self._gates), self._threads.issue]
        return Report(
            is_gate_shut=self.gate.shut_reason is not None,
            without_room=self._room.waiting,
            unsubscribed=tuple(worker.queue for worker in self.workers if not worker.is_subscribed),
            issues=tuple(issue for issue in issues if issue is not None),
        )

    def measures(self) -> Iterable[tuple[Metric, Labels, float]]:
        """Return the threads that nobody waits for any more."""
        return [(THREADS_ABANDONED, (name,), count) for name, count in self._threads.abandoned.items()]

    def ended(self) -> None:
        """Let the threads end."""
        self._threads.close()

    def _policy_gate(self, worker: Worker) -> PolicyGate | None:
        handler = self._router.handlers(worker.queue)[0]
        if not handler.gates:
            return None
        return PolicyGate(
            *(worker.queue, handler.gates, worker),
            concurrency=handler.concurrency,
            prefetch=handler.prefetch,
            hold_seconds=lambda: self._patience.hold_seconds,
        )


def _worker(queue: str, execution: Execution, broker: Broker, router: Router, clock: Clock, spawn: Spawn) -> Worker:
    handler = router.handlers(queue)[0]  # those of one queue agree, the router saw to it
    return Worker(
        queue,
        execution,
        broker,
        concurrency=handler.concurrency,
        prefetch=handler.prefetch,
        is_gated=bool(handler.gates),
        clock=clock,
        spawn=spawn,
    )
