"""One running instance of a service: what is built at start, in which order it comes up, and how it ends.

Start: failpoints armed → health endpoint up → store reached and its schema checked → broker begins to connect in the
background → loops. A missing broker never blocks the start unless it is required.

End: readiness fails → no new deliveries, unstarted ones go back → running handlers finish within `drain_seconds` →
confirms and deletes are flushed → leases are given back → broker and store are closed. A crash at any of these lines
costs time, never a message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

import spoolproof
from spoolproof import failpoints, limits
from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.codec import TypeRegistry
from spoolproof.consumer.bridge import Bridge
from spoolproof.consumer.copies import Copies
from spoolproof.consumer.execution import Execution
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.policy_gate import PolicyGate
from spoolproof.consumer.room import Room
from spoolproof.consumer.router import Router
from spoolproof.consumer.worker import Worker
from spoolproof.errors import SchemaOutdated, StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.health.monitor import Monitor
from spoolproof.health.snapshot import Local
from spoolproof.health.thread import Address, HealthThread
from spoolproof.ids import Ids
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding, Membership
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.maintenance.breakers import Breakers
from spoolproof.maintenance.facts import FactExchange
from spoolproof.maintenance.prune import LEADER, PRUNE, Pruner
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.relay import Relay
from spoolproof.policies import Registry
from spoolproof.ports.broker import Topology
from spoolproof.ports.leases import Process
from spoolproof.ports.store import Store
from spoolproof.protected import ProtectedBroker
from spoolproof.settings import Settings
from spoolproof.wiring import build_broker, build_store

logger = logging.getLogger("spoolproof.service")

RELAY = "relay"
CONSUMER = "consumer"
MAINTENANCE = "maintenance"
ROLES = (RELAY, CONSUMER, MAINTENANCE)
"""What a process can do; all of it unless `--only` names some."""

_TURN_SECONDS = 0.2  #: most turns only wait for work, and all may be cut at any line: a drain need not wait for them


class Runtime:
    """Everything one process of a service runs. Made by start, used once."""

    def __init__(
        self,
        service: str,
        settings: Settings,
        router: Router,
        registry: TypeRegistry,
        policies: Registry,
        *,
        roles: Sequence[str],
        health: Address | None,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
    ) -> None:
        """health: where to answer probes from a thread of its own, or None. Raises SettingsError, MissingExtra."""
        self.service = service
        self.settings = settings
        self.roles = tuple(roles)
        self._router = router
        self._registry = registry
        self._policies = policies
        self._clock = clock
        self._ids = ids
        self._random = random
        self.supervisor = Supervisor(clock, random)
        self.store = build_store(settings, clock=clock, ids=ids, spawn=self.supervisor.spawn)
        broker = build_broker(settings, service, clock=clock, ids=ids, random=random, spawn=self.supervisor.spawn)
        self.broker = ProtectedBroker(broker, policies)
        self.publisher = Publisher(self.store, source=service, clock=clock, ids=ids)
        self.breakers = Breakers(service, policies, self.store, clock=clock)
        self.facts = FactExchange(service, policies, self.store, clock=clock)
        self.gate = Gate(self.store, clock=clock, spawn=self.supervisor.spawn)
        self.room = Room(self.store.outbox, self.gate, clock=clock)
        self.monitor = Monitor(
            self.store,
            self.broker,
            service=service,
            version=spoolproof.__version__,
            detail=settings.health_detail,
            ready_needs=settings.ready_needs,
            is_broker_required=settings.broker_required,
            local=self._local,
            clock=clock,
            random=random,
        )
        self._health = None if health is None else HealthThread(health, self.monitor.snapshot, clock)
        self.shards: Holding | None = None
        self.membership: Membership | None = None
        self.workers: tuple[Worker, ...] = ()
        self._loops: list[Loop] = []
        self.is_started = False
        self.is_draining = False
        self._plan: failpoints.Plan | None = None

    async def start(self) -> None:
        """Bring everything up. Raises StoreUnavailable after 60 s, SchemaOutdated, or BrokerUnavailable if required."""
        if self.settings.failpoints or self.settings.failpoint_log:
            plan = self._plan = failpoints.parse_plan(self.settings.failpoints, self.settings.failpoint_log)
            failpoints.arm(plan)
            logger.warning("failpoints.armed %s", " ".join(plan.armed) or "none")
        self._policies.resume()  # a service that ran before in this process may have drained them
        self.supervisor.fatal = asyncio.get_running_loop().create_future()
        try:
            if self._health is not None:
                self._health.start()  # first, so that probes see a start that waits for its store
            await self._reach_store()
            await ensure_schema(self.store, self.settings)
            await self.store.services.claim(self.service)  # also where no relay runs: it is where rows are written
            await self.breakers.restore()
            await self.broker.start(self.topology())
            await self._start_loops()
        except BaseException:
            await self.stop()
            raise
        self.is_started = True
        logger.info("service.started name=%s roles=%s", self.service, ",".join(self.roles))

    def topology(self) -> Topology:
        """Return what this service needs to exist in the broker."""
        return Topology(
            service=self.service,
            exchange=self.settings.exchange,
            queues=self._router.specs(),
            tiers_seconds=limits.TIERS_SECONDS,
        )

    async def drain(self, seconds: float) -> None:
        """Finish what runs and take nothing new; handlers still running after `seconds` are cut off, unsettled."""
        self.is_draining = True
        lanes = [lane for worker in self.workers for lane in worker.lanes]
        self.supervisor.quiet(lanes)
        self.gate.drain()
        self._policies.drain()  # a message in a back-off is better deferred than waited for
        for worker in self.workers:
            await worker.begin_drain()
        failpoint("drain.after_start")
        await self.supervisor.drain(lanes, seconds)
        failpoint("drain.after_handlers")
        for loop in self._loops:
            await self.supervisor.drain([loop], _TURN_SECONDS)

    async def stop(self) -> None:
        """Close everything, drained or not; an error of one part is raised when the others are closed. Idempotent."""
        self.is_draining = True
        self.is_started = False
        async with AsyncExitStack() as closing:  # last in, first out
            closing.callback(self._policies.resume)
            closing.callback(self._disarm)
            if self._health is not None:
                closing.push_async_callback(self._health.stop)
            closing.push_async_callback(self.supervisor.stop)
            closing.push_async_callback(self.store.stop)
            closing.push_async_callback(self.broker.stop)
            closing.push_async_callback(self.supervisor.stop_loops)

    def _disarm(self) -> None:
        # the next start in this process goes by its own settings
        if self._plan is not None and failpoints.armed_plan() is self._plan:
            failpoints.arm(None)

    def _local(self) -> Local:
        plan = failpoints.armed_plan()
        return Local(
            is_started=self.is_started,
            is_draining=self.is_draining,
            is_fenced=self.shards is not None and self.shards.is_fenced,
            is_gate_shut=self.gate.shut_reason is not None,
            without_room=self.room.waiting,
            unsubscribed=tuple(worker.queue for worker in self.workers if not worker.is_subscribed),
            stalled=tuple(self.supervisor.stalled()),
            failpoints=() if plan is None else plan.armed,
        )

    async def _reach_store(self) -> None:
        deadline = self._clock.monotonic() + limits.FIRST_CONTACT_SECONDS
        while True:
            try:
                await self.store.start()
                return
            except StoreUnavailable as error:
                self.monitor.store_failed(error)
                if self._clock.monotonic() >= deadline:
                    raise
                logger.warning("store.waiting url=%s error=%s", self.store.name, error)
            await self._clock.sleep(limits.STORE_PING_MAX_SECONDS)

    async def _start_loops(self) -> None:
        loops: list[Loop] = []
        fence_seconds = self.settings.lease_seconds * 2 / 3
        holdings = []
        if RELAY in self.roles:
            own = self.store.services.own
            self.shards = Holding(own.lease_kind, own.lease_names, self._clock, fence_seconds)
            holdings.append(self.shards)
            loops.append(Relay(self.store, self.broker, self.shards, clock=self._clock, ids=self._ids))
        if CONSUMER in self.roles and self._router.queues:
            loops.append(self._bridge())
            self.workers = self._make_workers()
        if MAINTENANCE in self.roles:
            leadership = Holding(LEADER, [PRUNE], self._clock, fence_seconds)
            holdings.append(leadership)
            loops.append(
                Pruner(
                    self.store,
                    leadership,
                    inbox_seconds=self.settings.inbox_retention_seconds,
                    clock=self._clock,
                )
            )
        self.membership = self._make_membership(holdings)
        # leases go last on drain: until then no peer takes over what is still being flushed
        self._loops = [*loops, self.breakers, self.facts, self.membership]
        for loop in (self.monitor, *self._loops):
            await self.supervisor.run(loop)
        for worker in self.workers:
            gate = self._policy_gate(worker)
            if gate is None:
                await worker.subscribe()
            else:
                self._loops.insert(0, gate)
                await self.supervisor.run(gate)
            for lane in worker.lanes:
                await self.supervisor.run(lane)

    def _make_membership(self, holdings: Sequence[Holding]) -> Membership:
        process = Process(
            id=self._ids.uuid7(),
            service=self.service,
            host=socket.gethostname(),
            pid=os.getpid(),
            roles=tuple(holding.kind for holding in holdings),
        )
        return Membership(
            process,
            self.store.leases,
            holdings,
            lease_seconds=self.settings.lease_seconds,
            clock=self._clock,
            ids=self._ids,
            random=self._random,
        )

    def _make_workers(self) -> tuple[Worker, ...]:
        execution = Execution(
            store=self.store,
            router=self._router,
            registry=self._registry,
            publisher=self.publisher,
            copies=Copies(self.broker, clock=self._clock),
            gate=self.gate,
            room=self.room,
            clock=self._clock,
            ids=self._ids,
            random=self._random,
            host=socket.gethostname(),
        )
        workers = []
        for queue in self._router.queues:
            handler = self._router.handlers(queue)[0]  # those of one queue agree, the router saw to it
            workers.append(
                Worker(
                    queue,
                    execution,
                    self.broker,
                    concurrency=handler.concurrency,
                    prefetch=handler.prefetch,
                    spawn=self.supervisor.spawn,
                )
            )
        return tuple(workers)

    def _policy_gate(self, worker: Worker) -> PolicyGate | None:
        handler = self._router.handlers(worker.queue)[0]
        if not handler.gates:
            return None
        return PolicyGate(
            worker.queue, handler.gates, worker, concurrency=handler.concurrency, prefetch=handler.prefetch
        )

    def _bridge(self) -> Bridge:
        return Bridge(
            self.service,
            self._router.queues,
            self.store,
            self.broker,
            self.gate,
            clock=self._clock,
            ids=self._ids,
        )


async def ensure_schema(store: Store, settings: Settings) -> None:
    """Bring the schema up to date where that is allowed, else refuse. Raises SchemaOutdated naming the command.

    SQLite and memory migrate at start; PostgreSQL, which other releases may share, only with SPOOLPROOF_MIGRATE=auto.
    """
    found = await store.migrations.found()
    needed = store.migrations.needed
    if found == needed:
        return
    is_shared = settings.store_url.startswith("postgres")
    is_allowed = settings.migrate == "auto" or (settings.migrate is None and not is_shared)
    if found > needed or not is_allowed:
        raise SchemaOutdated(found, needed, store.name)
    for step in await store.migrations.apply():
        logger.info("migration.applied step=%s", step)
