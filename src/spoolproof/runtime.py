"""One running instance of a service: what is built at start, in which order it comes up, and how it ends.

Start: failpoints armed → health endpoint up → store reached and its schema checked → broker begins to connect in the
background → loops. A missing broker never blocks the start unless it is required. A missing store does not where a part
keeps publishes without it and no hook was promised it: what needs the store then starts when it is reached.

End: readiness fails → no new deliveries, unstarted ones go back → running handlers finish within `drain_seconds` →
confirms and deletes are flushed → leases are given back → broker and store are closed. A crash at any of these lines
costs time, never a message.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import groupby
from typing import TypeVar
from uuid import UUID

import spoolproof
from spoolproof import failpoints, limits
from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable, NotFound, NotStarted, SchemaOutdated, StoreUnavailable, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.health.dependencies import Dependencies
from spoolproof.health.monitor import Monitor
from spoolproof.health.sampler import Sampler
from spoolproof.health.settings import HealthSettings
from spoolproof.health.snapshot import Local
from spoolproof.health.thread import Address, HealthThread
from spoolproof.health.view import ProcessView, Views, samples_now, view_of
from spoolproof.ids import Ids
from spoolproof.lifecycle.entry import Context
from spoolproof.lifecycle.events import (
    BUILD_INFO,
    DATA_FREE,
    LOOPS_STALLED,
    FailpointsArmed,
    MigrationApplied,
    ServiceStarted,
    StoreReached,
    StoreWaiting,
)
from spoolproof.lifecycle.hooks import Hooks
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.lifecycle.membership import Membership
from spoolproof.lifecycle.part import Part
from spoolproof.lifecycle.registrations import Registrations
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.outbox.around import PublishAround
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.parts import make_parts
from spoolproof.policies import Registry
from spoolproof.ports.broker import Broker, ConnectionState, QueueSpec, Topology
from spoolproof.ports.health import HealthView
from spoolproof.ports.leases import Process
from spoolproof.ports.store import Store
from spoolproof.ports.units import Units
from spoolproof.protected import NAME as BROKER_POLICY
from spoolproof.protected import ProtectedBroker
from spoolproof.settings import Settings
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import METER, Measure
from spoolproof.telemetry.opentelemetry import offer_to_opentelemetry
from spoolproof.wiring import build_broker, build_local, build_store, shown, store_adapter

P = TypeVar("P", bound=Part)

_HANDLERS_SHOWN = 20  #: in the start line

_TURN_SECONDS = 0.2  #: most turns only wait for work, and all may be cut at any line: a drain need not wait for them


class Runtime:
    """Everything one process of a service runs. Made by start, used once."""

    def __init__(
        self,
        service: str,
        settings: Settings,
        registrations: Registrations,
        policies: Registry,
        *,
        roles: Sequence[str],
        health: Address | None,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
        make_store: Callable[..., Store] = build_store,
        make_broker: Callable[..., Broker] = build_broker,
    ) -> None:
        """health: where to answer probes from a thread of its own, or None. Raises SettingsError, MissingExtra."""
        self.service, self.settings, self.roles = service, settings, tuple(roles)
        self.registrations, self.policies = registrations, policies
        self.clock = self._clock = clock
        self.ids = self._ids = ids
        self._random = random
        self.supervisor = Supervisor(clock, random, is_away=self._is_away)
        spawn = self.supervisor.spawn
        self.store = make_store(settings, clock=clock, ids=ids, spawn=spawn, service=service)
        broker = make_broker(settings, clock=clock, ids=ids, random=random, spawn=spawn)
        self.broker = ProtectedBroker(broker, policies)
        self.publisher = Publisher(
            self.store, source=service, clock=clock, ids=ids, around=registrations.of(PublishAround)
        )
        units = UnitsOfWork(self.store, self.publisher)
        local = build_local(settings, self.store, service, clock=clock, ids=ids)
        dependencies = Dependencies(policies, clock=clock, random=random, spawn=spawn, without=(BROKER_POLICY,))
        self.monitor = self._make_monitor(dependencies)
        context = Context(
            service=service,
            settings=settings,
            store=self.store,
            broker=self.broker,
            registrations=registrations,
            singles={
                **{Registry: policies, Publisher: self.publisher, Units: units},
                **{Dependencies: dependencies, HealthView: self.monitor, **local},
            },
            fence_seconds=settings.lease_seconds * limits.FENCE_SHARE,
            clock=clock,
            ids=ids,
            random=random,
            process_id=lambda: self.process_id,
            spawn=spawn,
        )
        self.parts = make_parts(context, roles)
        self._health = None if health is None else HealthThread(health, self.monitor.snapshot, clock)
        self._membership: Membership | None = None
        self._loops: list[Loop] = []
        self._joining: asyncio.Task[None] | None = None
        self._unmeasure: list[Callable[[], None]] = []
        self._hooks = registrations.of(Hooks)
        self.is_started = self.is_draining = False
        self._plan: failpoints.Plan | None = None
        self._views = Views(self.store.state, self.view, lambda: self.process_id, clock=clock)
        self._started_at = clock.now()

    def _make_monitor(self, dependencies: Dependencies) -> Monitor:
        return Monitor(
            self._sampler(),
            self.broker,
            store=self.store.name,
            ping=self.store.ping,
            service=self.service,
            version=spoolproof.__version__,
            detail=self.settings.of(HealthSettings).detail,
            ready_needs=self.settings.of(HealthSettings).ready_needs,
            is_broker_required=self.settings.broker_required,
            local=self._local,
            dependencies=dependencies,
            clock=self._clock,
            random=self._random,
        )

    def _sampler(self) -> Sampler:
        return Sampler(
            *(self.store.services, self.store.outbox, self.store.leases, self.store.dead_letters),
            lease_seconds=self.settings.lease_seconds,
            clock=self._clock,
            random=self._random,
        )

    async def start(self) -> None:
        """Bring everything up, or all that does not need the store where publishes are kept without it.

        Raises StoreUnavailable after 60 s, SchemaOutdated, or BrokerUnavailable if required.
        """
        if self.settings.failpoints or self.settings.failpoint_log:
            plan = self._plan = failpoints.parse_plan(self.settings.failpoints, self.settings.failpoint_log)
            failpoints.arm(plan)
            emit(FailpointsArmed(armed=" ".join(plan.armed) or "none"))
        self.supervisor.fatal = asyncio.get_running_loop().create_future()
        try:
            if self._health is not None:
                self._health.start()  # first, so that probes see a start that waits for its store
            error = await self._reach_store_at_start()
            if error is None:
                await self._join_store()
            await self._hooks.start()
            await self.broker.start(self.topology())
            await self.supervisor.run(self.monitor)
            if error is None:
                await self._start_loops(self.parts)
            else:
                self.monitor.store_failed(error)
                await self._start_loops([part for part in self.parts if not part.needs_store])
                self._joining = self.supervisor.spawn(self._join_later(), "store.join")
            sources = [self.measures, self.monitor.measures, *(part.measures for part in self.parts)]
            offer_to_opentelemetry(self._clock)
            self._unmeasure = [METER.source(source) for source in sources]
        except BaseException:
            await self.stop()
            raise
        self.is_started = True
        emit(self._started())

    def measures(self) -> Iterator[Measure]:
        """Yield what is true of the process, and of all of them in the one that leads."""
        yield BUILD_INFO, (spoolproof.__version__, platform.python_version()), 1
        yield LOOPS_STALLED, (), len(self.supervisor.stalled())
        with suppress(OSError):  # nothing is there when store and broker are elsewhere
            yield DATA_FREE, (), shutil.disk_usage(self.settings.data_dir).free
        if self._membership is not None and self._local().leads_database:
            yield from self._membership.measures()

    @property
    def process_id(self) -> UUID:
        """This process's, as its peers see it now. Raises NotStarted before the store was reached."""
        if self._membership is None:
            raise NotStarted(f"service {self.service!r} has not reached its store")
        return self._membership.process.id

    def view(self) -> ProcessView:
        """Return what this process tells of itself now. On the event loop only."""
        return view_of(self.monitor.snapshot(), self._started_at, samples_now())

    def wake_from_thread(self) -> None:
        """Tell the relay that a row may be waiting soon; from any thread."""
        fatal = self.supervisor.fatal
        if fatal is not None:
            with suppress(RuntimeError):  # its event loop is closed
                fatal.get_loop().call_soon_threadsafe(self.publisher.wake)

    def part(self, kind: type[P]) -> P:
        """Return the part of a kind. Raises NotFound where this process has not its role."""
        for part in self.parts:
            if isinstance(part, kind):
                return part
        raise NotFound(f"this process has no {kind.__name__}; its roles are {', '.join(self.roles)}")

    def _started(self) -> ServiceStarted:
        queues = [queue for part in self.parts for queue in part.queues()]
        handlers = [f"{queue.name}({','.join(queue.types)})" for queue in queues[:_HANDLERS_SHOWN]]
        if len(queues) > _HANDLERS_SHOWN:
            handlers.append(f"and {len(queues) - _HANDLERS_SHOWN} more")
        return ServiceStarted(
            service=self.service,
            release=spoolproof.__version__,
            store=self.store.name,
            broker=",".join(shown(url) for url in self.settings.broker_urls),
            roles=",".join(self.roles),
            handlers=" ".join(handlers) or "none",
        )

    def topology(self) -> Topology:
        """Return what this service needs to exist in the broker."""
        return topology_of(self.service, self.settings, [queue for part in self.parts for queue in part.queues()])

    async def drain(self, seconds: float) -> None:
        """Finish what runs and take nothing new; handlers still running after `seconds` are cut off, unsettled."""
        self.is_draining = True
        self._stop_joining()
        handling = [loop for loop in self._loops if loop.phase is Phase.HANDLE]
        self.supervisor.quiet(handling)
        for part in self.parts:
            await part.begin_drain()
        failpoint("drain.after_start")
        await self.supervisor.drain(handling, seconds)
        failpoint("drain.after_handlers")
        others = [loop for loop in reversed(self._loops) if loop.phase is not Phase.HANDLE]
        for _, loops in groupby(others, key=lambda loop: loop.phase):
            await self.supervisor.drain(list(loops), _TURN_SECONDS)

    async def stop(self) -> None:
        """Close everything, drained or not; an error of one part is raised when the others are closed. Idempotent."""
        self.is_draining = True
        self.is_started = False
        self._stop_joining()
        while self._unmeasure:
            self._unmeasure.pop()()
        async with AsyncExitStack() as closing:  # last in, first out
            closing.callback(self._disarm)
            for part in self.parts:
                closing.callback(part.ended)
            if self._health is not None:
                closing.push_async_callback(self._health.stop)
            closing.push_async_callback(self.supervisor.stop)
            closing.push_async_callback(self.store.stop)
            closing.push_async_callback(self.broker.stop)
            closing.push_async_callback(self._hooks.stop)
            closing.push_async_callback(self.supervisor.stop_loops)

    def _disarm(self) -> None:
        # the next start in this process goes by its own settings
        if self._plan is not None and failpoints.armed_plan() is self._plan:
            failpoints.arm(None)

    def _is_away(self, error: Unavailable) -> bool:
        if isinstance(error, BrokerUnavailable):
            return self.broker.status().state is not ConnectionState.CONNECTED
        return self.monitor.is_store_away

    def _local(self) -> Local:
        plan = failpoints.armed_plan()
        reports = [part.report() for part in self.parts]
        return Local(
            is_started=self.is_started,
            is_draining=self.is_draining,
            is_fenced=any(report.is_fenced for report in reports),
            is_gate_shut=any(report.is_gate_shut for report in reports),
            keeps_publishes=any(report.keeps_publishes for report in reports),
            leads_service=any(report.leads_service for report in reports),
            leads_database=any(report.leads_database for report in reports),
            without_room=tuple(queue for report in reports for queue in report.without_room),
            unsubscribed=tuple(queue for report in reports for queue in report.unsubscribed),
            stalled=tuple(self.supervisor.stalled()),
            issues=tuple(issue for report in reports for issue in report.issues),
            dependencies=tuple(one for report in reports for one in report.dependencies),
            level=max((report.level for report in reports), default=0),
            fullness=max((report.fullness for report in reports), default=0.0),
            failpoints=() if plan is None else plan.armed,
        )

    async def _reach_store_at_start(self) -> StoreUnavailable | None:
        """Wait for the store; its error where the start goes on without it."""
        is_spared = not self._hooks and any(part.report().keeps_publishes for part in self.parts)
        self.publisher.is_store_reached = False
        try:
            await self._reach_store(limits.FIRST_CONTACT_SPARED_SECONDS if is_spared else limits.FIRST_CONTACT_SECONDS)
        except StoreUnavailable as error:
            if not is_spared:
                raise
            return error
        return None

    async def _join_store(self) -> None:
        """Take up what needs the store, which has just been reached, but for the loops."""
        self._membership = self._make_membership()  # not before: whose leases it takes, the store has just said
        for part in self.parts:
            await part.restore()
        self.publisher.is_store_reached = True
        for part in self.parts:
            part.store_reached()

    async def _join_later(self) -> None:
        """Wait for the store as long as it takes, then start what needs it."""
        folded = Folded(self._clock)
        while not self.publisher.is_store_reached:
            try:
                await self._reach_store(math.inf)
                await self._join_store()
            except (StoreUnavailable, SchemaOutdated) as error:  # an operator can mend the schema meanwhile
                self.monitor.store_failed(error)
                folded.emit(StoreWaiting(error=str(error)))
                await self._clock.sleep(limits.STORE_PING_MAX_SECONDS)
        try:
            await self._start_loops([part for part in self.parts if part.needs_store])
        except Exception as error:
            if self.supervisor.fatal is not None and not self.supervisor.fatal.done():
                self.supervisor.fatal.set_result(error)
            raise

    def _stop_joining(self) -> None:
        if self._joining is not None:
            self._joining.cancel()

    async def _reach_store(self, seconds: float) -> None:
        """Wait so long for the store. Raises StoreUnavailable, SchemaOutdated."""
        began = self._clock.monotonic()
        waits = 0
        folded = Folded(self._clock)
        while True:
            try:
                await self.store.start()
                await ensure_schema(self.store, self.settings)
                await self.store.services.claim(self.service)  # also where no relay runs: it is where rows are written
                break
            except StoreUnavailable as error:
                self.monitor.store_failed(error)
                if self._clock.monotonic() >= began + seconds:
                    raise
                waits += 1
                folded.emit(StoreWaiting(error=str(error)))
            await self._clock.sleep(limits.STORE_PING_MAX_SECONDS)
        if waits:
            emit(StoreReached(seconds=self._clock.monotonic() - began))

    async def _start_loops(self, parts: Sequence[Part]) -> None:
        loops: list[Loop] = [] if self._membership is None else [self._membership]
        adapter = store_adapter(self.settings)
        if loops and adapter.has_inbox and not adapter.is_forgetful:  # else nobody can look into it
            loops.append(self._views)
        for part in parts:
            loops += part.loops()
        loops.sort(key=lambda loop: loop.phase)
        self._loops = sorted([*self._loops, *loops], key=lambda loop: loop.phase)
        for loop in loops:
            await self.supervisor.run(loop)

    def _make_membership(self) -> Membership:
        holdings = [holding for part in self.parts for holding in part.holdings()]
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


async def ensure_schema(store: Store, settings: Settings) -> None:
    """Bring the schema up to date where that is allowed, else refuse. Raises SchemaOutdated naming the command.

    SQLite and memory migrate at start; PostgreSQL, which other releases may share, only with SPOOLPROOF_MIGRATE=auto.
    """
    found = await store.migrations.found()
    needed = store.migrations.needed
    if found == needed:
        return
    is_allowed = settings.migrate == "auto" or (settings.migrate is None and not store_adapter(settings).is_shared)
    if found > needed or not is_allowed:
        raise SchemaOutdated(found, needed, store.name)
    for step in await store.migrations.apply():
        emit(MigrationApplied(step=step))


def topology_of(service: str, settings: Settings, queues: Sequence[QueueSpec]) -> Topology:
    """Return what a service with these queues needs to exist in the broker."""
    return Topology(
        service=service, exchange=settings.exchange, queues=tuple(queues), tiers_seconds=limits.TIERS_SECONDS
    )
