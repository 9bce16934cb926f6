"""The loop that asks in the background what probes answer from memory.

Every 10 s (± 10 %) the store is pinged and the outbox and its leases are sampled, each within a second. Three failures
in a row turn the store unhealthy, two successes turn it back. The broker's status and the gate are read live, without
I/O, whenever a snapshot is made: what they know counts at once.

Everything runs on the event loop. The health thread gets snapshots, never this object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import datetime

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.clock import Clock
from spoolproof.errors import SettingsError
from spoolproof.health.snapshot import DB, Dependency, Local, Need, Ownership, Snapshot, Status
from spoolproof.lifecycle.loop import Loop
from spoolproof.ports.broker import Broker, BrokerStatus, ConnectionState
from spoolproof.ports.outbox import Backlog
from spoolproof.ports.store import Store

logger = logging.getLogger("spoolproof.health")

BROKER_NAMES = ("rabbitmq", "embedded", "memory")


class Condition:
    """Something that is or is not so, and since when."""

    def __init__(self, clock: Clock, *, holds: bool) -> None:
        self._clock = clock
        self.holds = holds
        self.since = clock.now()
        self._changed_at = clock.monotonic()

    def note(self, holds: bool, since: datetime | None = None) -> None:
        """Note how it is now. since: when it became so, if that is known better than "just now"."""
        if holds is not self.holds:
            self.holds = holds
            self.since = since or self._clock.now()
            self._changed_at = self._clock.monotonic()

    @property
    def seconds(self) -> float:
        """For how long it has been so; 0 when it is not."""
        return self._clock.monotonic() - self._changed_at if self.holds else 0.0


class Check:
    """A verdict that several answers in a row must agree on to change. Starts as failing: nothing was reached yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._against = 0  # answers in a row that contradict the verdict
        self._checked_at = clock.monotonic()
        self.is_passing = False
        self.error: str | None = None

    def passed(self, *, at_once: bool = False) -> None:
        """Note a success. at_once: it is proof enough by itself."""
        self.error = None
        self._note(True, limits.HEALTH_SUCCESSES, at_once)

    def failed(self, error: BaseException) -> None:
        """Note a failure. Keeps the error's class only: its text may name what must stay secret."""
        self.error = type(error).__name__
        self._note(False, limits.HEALTH_FAILURES, False)

    @property
    def age_seconds(self) -> float:
        """How long ago the last answer came."""
        return self._clock.monotonic() - self._checked_at

    def _note(self, is_passing: bool, needed: int, at_once: bool) -> None:
        self._checked_at = self._clock.monotonic()
        self._against = 0 if is_passing is self.is_passing else self._against + 1
        if self._against >= needed or at_once:
            self.is_passing = is_passing
            self._against = 0


class Monitor(Loop):
    """Watches the dependencies and makes snapshots."""

    name = "health"

    def __init__(
        self,
        store: Store,
        broker: Broker,
        *,
        service: str,
        version: str,
        detail: str,
        ready_needs: Collection[str],
        is_broker_required: bool,
        local: Callable[[], Local],
        clock: Clock,
        random: RandomSource,
    ) -> None:
        """local: what the process knows of itself, asked for every snapshot. Raises SettingsError for a name in
        `ready_needs` that is no dependency."""
        unknown = [name for name in ready_needs if name not in (DB, *BROKER_NAMES)]
        if unknown:
            known = ", ".join((DB, *BROKER_NAMES[:2]))
            raise SettingsError([f"SPOOLPROOF_READY_NEEDS={name}: the dependencies are {known}" for name in unknown])
        self._store = store
        self._broker = broker
        self._service = service
        self._version = version
        self._detail = detail
        self._needs = frozenset(ready_needs)
        self._is_broker_required = is_broker_required
        self._local = local
        self._clock = clock
        self._random = random
        self._store_check = Check(clock)
        self._store_away = Condition(clock, holds=True)
        self._broker_away = Condition(clock, holds=True)
        self._unowned = Condition(clock, holds=False)
        self._sampled_at = clock.monotonic()
        self._backlog: Backlog | None = None
        self._shards: tuple[int, int] | None = None

    async def start(self) -> None:
        """Take the store for healthy: the start has just reached it."""
        self._store_check.passed(at_once=True)

    async def run_once(self) -> int:
        """Check and sample once, then rest."""
        await self._check_store()
        if self._store_check.error is None:
            await self._sample()
        self.snapshot()  # notes what changed, also when nobody probes
        await self._clock.sleep(spread_seconds(limits.HEALTH_CHECK_SECONDS, ratio=0.1, source=self._random))
        return 1

    def store_failed(self, error: BaseException) -> None:
        """Note why the store could not be reached while the service starts."""
        self._store_check.failed(error)

    def snapshot(self) -> Snapshot:
        """Return what is known now. On the event loop only."""
        local = self._local()
        status = self._broker.status()
        is_fresh = self._clock.monotonic() - self._sampled_at <= limits.HEALTH_STALE_SECONDS
        return Snapshot(
            at=self._clock.now(),
            service=self._service,
            version=self._version,
            detail=self._detail,
            local=local,
            db=self._db(local),
            broker=self._broker_dependency(status),
            broker_issues=status.issues,
            backlog=self._backlog if is_fresh else None,
            ownership=self._ownership() if is_fresh else None,
            needs=self._needs | {status.kind} if self._is_broker_required else self._needs,
        )

    async def _check_store(self) -> None:
        try:
            async with asyncio.timeout(limits.HEALTH_CHECK_SECONDS_MAX):
                await self._store.ping()
        except Exception as error:  # a check that raises anything has failed
            self._store_check.failed(error)
        else:
            self._store_check.passed()

    async def _sample(self) -> None:
        try:
            async with asyncio.timeout(limits.HEALTH_CHECK_SECONDS_MAX):
                own = self._store.services.own
                backlog = await self._store.outbox.backlog(own.shards)
            async with asyncio.timeout(limits.HEALTH_CHECK_SECONDS_MAX):
                leases = await self._store.leases.status(own.lease_kind)
        except Exception as error:  # too slow or away: the ping says which, and an old sample expires by itself
            logger.debug("health.sample_failed error=%s", type(error).__name__)
            return
        self._backlog = backlog
        self._shards = (len(leases), sum(1 for lease in leases if lease.owner is None or lease.is_expired))
        self._unowned.note(self._shards[1] > 0)
        self._sampled_at = self._clock.monotonic()

    def _db(self, local: Local) -> Dependency:
        check = self._store_check
        self._store_away.note(not check.is_passing or local.is_gate_shut)
        if self._store_away.holds:
            status = Status.UNHEALTHY
        elif local.is_started and check.age_seconds > limits.HEALTH_STALE_SECONDS:
            status = Status.UNKNOWN
        else:
            status = Status.HEALTHY
        return Dependency(
            key=DB,
            need=Need.CRITICAL,  # without a second durable place nothing can be accepted
            status=status,
            state=ConnectionState.DISCONNECTED if self._store_away.holds else ConnectionState.CONNECTED,
            url=self._store.name,
            since=self._store_away.since,
            away_seconds=self._store_away.seconds,
            error=check.error,
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

    def _ownership(self) -> Ownership | None:
        if self._shards is None:
            return None
        shards, unowned = self._shards
        return Ownership(shards=shards, unowned=unowned, seconds=self._unowned.seconds)


def _class_in(error: str | None) -> str | None:
    """Return the class at the head of a one-line error; errors in a body are classes, their text may hold secrets."""
    if error is None:
        return None
    head = error.partition(":")[0]
    return head if head.replace(".", "").isidentifier() else "BrokerUnavailable"
