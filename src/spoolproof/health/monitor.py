"""The loop that asks in the background what probes answer from memory.

The store is pinged every second, and after an answer that contradicts what is believed every half second: two such
answers in a row turn its status, either way. So an outage is seen within 4 s also where nothing answers and nothing
closes, and its end within 2 s. Its beginning is when the first ping that failed was sent, its error that ping's.

Every 10 s (± 10 %) the outbox, its leases and the dead letters are counted. The broker's status is read live, without
I/O, whenever a snapshot is made: what it knows counts at once.

Everything runs on the event loop. The health thread gets snapshots, never this object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.clock import Clock
from spoolproof.errors import StoreUnavailable
from spoolproof.health.check import Check, Condition
from spoolproof.health.connections import Connections
from spoolproof.health.dependencies import Dependencies
from spoolproof.health.events import EVENT_LOOP_LAG, HealthReady, HealthUnready
from spoolproof.health.sampler import Sampler
from spoolproof.health.snapshot import DB, Dependency, Local, Need, Snapshot, Status
from spoolproof.health.verdict import unready_reason
from spoolproof.lifecycle.loop import Loop
from spoolproof.ports.broker import Broker, BrokerStatus, ConnectionState
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER, Measure


class Monitor(Loop):
    """Watches store and broker and makes snapshots. Implements `ports.health.HealthView`."""

    name = "health"

    def __init__(
        self,
        sampler: Sampler,
        broker: Broker,
        *,
        store: str,
        ping: Callable[[], Awaitable[None]],
        service: str,
        version: str,
        detail: str,
        ready_needs: Collection[str],
        is_broker_required: bool,
        local: Callable[[], Local],
        dependencies: Dependencies | None = None,
        clock: Clock,
        random: RandomSource,
    ) -> None:
        """store, ping: its name, and what returns while it answers. local: what the process knows of itself, asked for
        every snapshot. dependencies: what policies protect."""
        self._store = store
        self._ping = ping
        self._broker = broker
        self._service = service
        self._version = version
        self._detail = detail
        self._needs = frozenset(ready_needs)
        self._is_broker_required = is_broker_required
        self._local = local
        self._dependencies = dependencies
        self._clock = clock
        self._random = random
        self._store_check = Check(clock)
        self._shut_for_nothing = Condition(clock, holds=False)
        self._broker_away = Condition(clock, holds=True)
        self._unready = Condition(clock, holds=False)
        self._connections = Connections()
        self._lag_seconds = METER.spread(EVENT_LOOP_LAG)
        self._late: deque[float] = deque(maxlen=5)
        self._sampler = sampler

    async def start(self) -> None:
        """Take the store for healthy: the start has just reached it."""
        self._store_check.believe(None)

    async def run_once(self) -> int:
        """Ask once, count if it is time to, then rest."""
        await self._store_check.ask(self._ping)
        is_well = not self._store_check.is_in_doubt and await self._sampler.sample_if_due()
        self._tell(self.snapshot())  # also notes what changed when nobody probes
        seconds = limits.HEALTH_PING_SECONDS if is_well else limits.HEALTH_DOUBT_SECONDS
        seconds = spread_seconds(seconds, ratio=0.1, source=self._random)
        due_at = self._clock.monotonic() + seconds
        await self._clock.sleep(seconds)
        late = max(0.0, self._clock.monotonic() - due_at)
        self._lag_seconds.observe(late)
        self._late.append(late)
        return 1

    def measures(self) -> Iterator[Measure]:
        """Yield the states of the connections, and what was counted."""
        yield from self._connections.measures(self._broker.status())
        local = self._local()
        yield from self._sampler.measures(leads_service=local.leads_service, leads_database=local.leads_database)

    def status_of(self, dependency: str) -> Status:
        """See HealthView."""
        found = None if self._dependencies is None else self._dependencies.status_of(dependency)
        if found is None and dependency == DB:
            return Status.HEALTHY if self._store_check.is_passing else Status.UNHEALTHY
        if found is None and (status := self._broker.status()).kind == dependency:
            return Status.HEALTHY if status.state is ConnectionState.CONNECTED else Status.UNHEALTHY
        if found is None:
            found = next((one.status for one in self._local().dependencies if one.key == dependency), None)
        return found or Status.UNKNOWN

    def known(self) -> Sequence[Dependency]:
        """See HealthView."""
        snapshot = self.snapshot()
        if snapshot.db is None or not snapshot.local.keeps_publishes:
            return snapshot.dependencies
        return (replace(snapshot.db, need=Need.IMPORTANT), *(one for one in snapshot.dependencies if one.key != DB))

    @property
    def lag_seconds(self) -> float:
        """See HealthView."""
        return max(self._late, default=0.0)

    @property
    def fullness(self) -> float:
        """See HealthView."""
        return self._local().fullness

    def store_failed(self, error: BaseException) -> None:
        """Note why the store could not be reached while the service starts."""
        self._store_check.believe(error)

    @property
    def is_store_away(self) -> bool:
        """Whether the store is away, or its last answer says that it may be."""
        return self._store_check.is_in_doubt

    def snapshot(self) -> Snapshot:
        """Return what is known now. On the event loop only."""
        local = self._local()
        status = self._broker.status()
        return Snapshot(
            at=self._clock.now(),
            service=self._service,
            version=self._version,
            detail=self._detail,
            local=local,
            db=self._db(local),
            broker=self._broker_dependency(status),
            broker_issues=status.issues,
            backlog=self._sampler.backlog,
            ownership=self._sampler.ownership,
            dead_letters=self._sampler.dead_letters,
            needs=self._needs | {status.kind} if self._is_broker_required else self._needs,
        )

    def _tell(self, snapshot: Snapshot) -> None:
        """Note what is connected, and tell a change of readiness: work stops coming, and somebody will ask why."""
        self._connections.note(one for one in snapshot.dependencies if one.url)
        if not snapshot.local.is_started or snapshot.local.is_draining:
            return
        reason = unready_reason(snapshot)
        was_unready, seconds = self._unready.holds, self._unready.seconds
        self._unready.note(reason is not None)
        if reason is not None and not was_unready:
            emit(HealthUnready(reason=reason))
        elif reason is None and was_unready:
            emit(HealthReady(seconds=seconds))

    def _db(self, local: Local) -> Dependency:
        check = self._store_check
        # a gate opens moments after the store answers; one that does not says that the store takes no writes
        self._shut_for_nothing.note(local.is_gate_shut and not check.is_in_doubt)
        is_useless = self._shut_for_nothing.seconds >= limits.HEALTH_GATE_SECONDS
        if not check.is_passing or is_useless:
            status = Status.UNHEALTHY
        elif local.is_started and check.age_seconds > limits.HEALTH_STALE_SECONDS:
            status = Status.UNKNOWN
        else:
            status = Status.HEALTHY
        return Dependency(
            key=DB,
            need=Need.CRITICAL,  # without a second durable place nothing can be accepted
            status=status,
            state=ConnectionState.CONNECTED if check.is_passing else ConnectionState.DISCONNECTED,
            url=self._store,
            since=self._shut_for_nothing.since if is_useless else check.since,
            away_seconds=self._shut_for_nothing.seconds if is_useless else check.failing_seconds,
            error=StoreUnavailable.__name__ if is_useless else check.error,
            checked_seconds_ago=check.age_seconds,
        )

    def _broker_dependency(self, status: BrokerStatus) -> Dependency:
        broken = [one for one in status.connections if one.state is not ConnectionState.CONNECTED]
        is_connected = status.state is ConnectionState.CONNECTED
        # each attempt restarts a connection's own `since`; the outage began before the first of them we saw
        self._broker_away.note(not is_connected, min((one.since for one in broken), default=None))
        shown = (broken or list(status.connections))[:1]
        is_critical = self._is_broker_required or status.kind in self._needs
        return Dependency(
            key=status.kind,
            need=Need.CRITICAL if is_critical else Need.OPTIONAL,
            status=Status.HEALTHY if is_connected else Status.UNHEALTHY,
            state=status.state,
            url=shown[0].url if shown else f"{status.kind}://",
            since=self._broker_away.since,
            away_seconds=self._broker_away.seconds,
            error=_class_in(shown[0].last_error) if shown and not is_connected else None,
        )


def _class_in(error: str | None) -> str | None:
    """Return the class at the head of a one-line error; errors in a body are classes, their text may hold secrets."""
    if error is None:
        return None
    head = error.partition(":")[0]
    return head if head.replace(".", "").isidentifier() else "BrokerUnavailable"
