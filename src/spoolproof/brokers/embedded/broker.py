"""The embedded broker: an SQLite file that every service on one machine shares.

How. Confirm = COMMIT, ack = DELETE, both many to a commit. One task per process does the rest, in turns: renew the
lease on its claims, rescue the claims of dead peers, release delayed messages that are due, claim up to the free
prefetch of every subscription, then wait for a bell: a commit of our own rings at once, one by another process is
seen by polling `PRAGMA data_version`.

A peer is dead when its lock file is free (seen within RESCUE_SECONDS) or its lease has run out. A rescued process
learns it from its next renewal and starts over as a new owner; until then its answers are fenced.

A file that cannot be used is an outage like any other: submit raises, nothing is lost, the task tries again. What it
had claimed stays claimed until it can renew or is rescued.

Never here: SQL (see `queues`); an exception that leaves a background task.
"""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import datetime, timedelta
from functools import partial
from importlib import resources
from pathlib import Path

from spoolproof import limits
from spoolproof.brokers.embedded import queues
from spoolproof.brokers.embedded.events import BrokerAway, BrokerBack, ClaimsLeft, ClaimsLost, ClaimsRescued
from spoolproof.brokers.embedded.incoming import EmbeddedSubscription
from spoolproof.brokers.embedded.ownership import Ownership
from spoolproof.brokers.embedded.queues import Claim, Claimed, Verb
from spoolproof.brokers.embedded.sender import Sender
from spoolproof.brokers.given_up import dead_queue, place_of
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable, SpoolproofError, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    BrokerStatus,
    Capabilities,
    ConnectionState,
    ConnectionStatus,
    OnIncoming,
    QueueSpec,
    Sink,
    Source,
    Spawn,
    Topology,
)
from spoolproof.sqlite import Database, owners, split_script
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded


class EmbeddedBroker:
    """`ports.broker.Broker` on a file. path: made if missing; not on a network file system."""

    capabilities = Capabilities(
        has_own_queues=True,
        tells_routing_key=True,
        has_returns=True,
        keeps_order=True,
        counts_deliveries=True,
        survives_restart=True,
        is_shared=True,
    )

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        ids: Ids,
        spawn: Spawn,
        claim_seconds: float = limits.CLAIM_SECONDS,
        queue_rows_max: int = limits.EMBEDDED_QUEUE_ROWS_MAX,
    ) -> None:
        self._path = path
        self._service = ""  #: known from its topology on
        self._clock = clock
        self._ids = ids
        self._spawn = spawn
        self._claim_seconds = claim_seconds
        self._topology: Topology | None = None
        self._ordered: frozenset[str] = frozenset()
        self._own: list[str] = []  #: this process's queues, which go with it
        self._database: Database | None = None
        self._ownership: Ownership | None = None
        self._task: asyncio.Task[None] | None = None
        self._subscriptions: list[EmbeddedSubscription] = []
        self._sender = Sender(queue_rows_max, on_enqueued=self._ring, on_trouble=self._note_trouble)
        self._state = ConnectionState.DISCONNECTED
        self._since: datetime = clock.now()
        self._attempt = 0
        self._retry_at: datetime | None = None
        self._trouble: BaseException | None = None  # met by a write; the task deals with it in its next turn
        self._last_error: str | None = None
        self._away_since: float | None = None  #: since when, in monotonic seconds, the log says that it is away
        self._folded = Folded(clock)
        self._bell = asyncio.Event()
        self._room_changed = asyncio.Event()
        self._seen_version = -1
        self._due_at: float | None = None
        self._rescue_at = 0.0
        self._may_have_work = True
        self._turned_at = 0.0

    # --- the port

    async def start(self, topology: Topology) -> None:
        self._topology, self._service = topology, topology.service
        self._ordered = frozenset(spec.name for spec in topology.queues if spec.is_ordered)
        self._task = self._spawn(self._run(topology), f"broker.embedded.{self._service}")

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        if not self._is_connected() or self._database is None or self._topology is None:
            raise BrokerUnavailable(
                f"the embedded broker's file {self._path} is not open: {self._trouble_now() or 'yet'}"
            )
        parcel = queues.parcel_of(outgoing, self._topology.service, self._topology.exchange)
        self._sender.submit(self._database, parcel, token, sink)

    def room(self) -> int:
        return self._sender.room if self._is_connected() else 0

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.room() < 1:
                    self._room_changed.clear()
                    await self._room_changed.wait()
        except TimeoutError:
            return False
        return True

    async def subscribe(self, source: Source, prefetch: int, on_delivery: OnIncoming) -> EmbeddedSubscription:
        place = place_of(source, self._service)
        subscription = EmbeddedSubscription(place, prefetch, on_delivery, self._settle, self._is_connected)
        if isinstance(source, QueueSpec):
            self._own.append(source.name)
            await self._declare_own()
        self._subscriptions.append(subscription)
        self._ring()
        return subscription

    async def _declare_own(self) -> None:
        database, ownership = self._database, self._ownership
        if database is None or ownership is None:
            return  # they are made when there is one
        try:
            await database.write(partial(queues.declare_own, names=self._own, owner_uuid=ownership.uuid))
        except Unavailable as error:
            self._note_trouble(error)  # and made when it connects again

    async def depth(self, queue: str) -> int | None:
        if self._state is not ConnectionState.CONNECTED or self._database is None:
            raise BrokerUnavailable(f"the embedded broker's file {self._path} is not open")
        try:
            return await self._database.read(lambda db: queues.depths(db).get(queue))
        except Unavailable as error:
            raise BrokerUnavailable(str(error)) from error

    async def remove(self, queue: str) -> int:
        if self._state is not ConnectionState.CONNECTED or self._database is None:
            raise BrokerUnavailable(f"the embedded broker's file {self._path} is not open")
        try:
            return await self._database.write(
                lambda db: queues.remove(db, queue) + queues.remove(db, dead_queue(queue))
            )
        except Unavailable as error:
            raise BrokerUnavailable(str(error)) from error

    def status(self) -> BrokerStatus:
        is_silent = self._is_silent()
        state = ConnectionState.DISCONNECTED if is_silent else self._state
        since = self._clock.now() - timedelta(seconds=self._turn_seconds()) if is_silent else self._since
        trouble = self._trouble_now()
        connections = tuple(
            ConnectionStatus(
                name=f"{purpose}-0",
                purpose=purpose,
                state=state,
                is_blocked=False,
                url=f"embedded:///{self._path}",
                since=since,
                attempt=self._attempt,
                last_error=trouble,
                retry_at=self._retry_at if state is ConnectionState.DISCONNECTED else None,
            )
            for purpose in ("publish", "consume")
        )
        is_away = trouble is not None and state is not ConnectionState.CONNECTED
        issues = (f"the embedded broker's file {self._path} cannot be used: {trouble}",) if is_away else ()
        return BrokerStatus(kind="embedded", state=state, is_blocked=False, connections=connections, issues=issues)

    async def stop(self) -> None:
        self._topology = None
        self._retry_at = None
        self._set_state(ConnectionState.DISCONNECTED)
        self._sender.give_up_waiting("the broker was stopped before it was written")
        for subscription in self._subscriptions:
            subscription.forget_all()
        self._subscriptions.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._close()

    async def _close(self) -> None:
        ownership, self._ownership = self._ownership, None
        database, self._database = self._database, None
        if ownership is not None:
            try:
                async with asyncio.timeout(limits.CLOSE_SECONDS):
                    await ownership.release()
            except (Unavailable, TimeoutError) as error:
                emit(ClaimsLeft(path=str(self._path), error=str(error)))
                ownership.abandon(is_row_gone=False)
        if database is not None:
            await database.stop()

    # --- the task

    async def _run(self, topology: Topology) -> None:
        """Connect and serve, for ever; the wait between attempts doubles from 0.25 s to 2 s."""
        wait_seconds = limits.STORE_PING_FIRST_SECONDS
        while True:
            try:
                await self._connect(topology)
                wait_seconds = limits.STORE_PING_FIRST_SECONDS
                while True:
                    self._turned_at = self._clock.monotonic()
                    await self._turn()
            except Exception as error:  # whatever it is: a broker that no longer turns must not look connected
                self._last_error = error_line(error)
                self._set_state(ConnectionState.DISCONNECTED)
                is_bug = not isinstance(error, SpoolproofError | OSError)
                self._away_since = self._away_since or self._clock.monotonic()
                away = BrokerAway(path=str(self._path), error=self._last_error)
                self._folded.emit(away, error=error if is_bug else None)
            self._retry_at = self._clock.now() + timedelta(seconds=wait_seconds)
            await self._clock.sleep(wait_seconds)
            self._retry_at = None
            wait_seconds = min(2 * wait_seconds, limits.STORE_PING_MAX_SECONDS)

    async def _connect(self, topology: Topology) -> None:
        self._attempt += 1
        self._set_state(ConnectionState.CONNECTING)
        self._trouble = None
        if self._database is None:
            database = Database(self._path, clock=self._clock, on_reboot=queues.on_reboot)
            await database.start()
            self._database = database
        await self._database.write(lambda db: _prepare(db, topology))
        if self._ownership is None:
            self._ownership = await self._become_owner(self._database)
        elif not await self._ownership.renew():
            await self._start_over(self._database)
        if self._own and self._ownership is not None:
            uuid = self._ownership.uuid
            await self._database.write(partial(queues.declare_own, names=self._own, owner_uuid=uuid))
        self._attempt = 0
        self._may_have_work = True
        self._turned_at = self._clock.monotonic()
        self._set_state(ConnectionState.CONNECTED)
        if self._away_since is not None:
            seconds, self._away_since = self._turned_at - self._away_since, None
            self._folded.over(BrokerAway)
            emit(BrokerBack(path=str(self._path), seconds=seconds))
        if self._ownership is not None:
            self._ownership.flush()

    async def _become_owner(self, database: Database) -> Ownership:
        ownership = Ownership(
            database,
            self._path,
            str(self._ids.uuid7()),
            clock=self._clock,
            lease_seconds=self._claim_seconds,
            on_settled=self._ring,
            on_trouble=self._note_trouble,
        )
        try:
            await ownership.begin()
        except BaseException:
            ownership.abandon(is_row_gone=False)  # the row may be there: free, the lock lets others remove it
            raise
        return ownership

    async def _start_over(self, database: Database) -> None:
        """Forget everything claimed, for peers have rescued it, and go on as a new owner."""
        emit(ClaimsLost(path=str(self._path)))
        if self._ownership is not None:
            self._ownership.abandon(is_row_gone=True)
            self._ownership = None
        for subscription in self._subscriptions:
            subscription.forget_all()
        self._may_have_work = True
        self._ownership = await self._become_owner(database)
        await self._declare_own()

    async def _turn(self) -> None:
        """Do what is due, claim what is ready, wait for a bell or a poll."""
        database, ownership = self._database, self._ownership
        if database is None or ownership is None:
            raise BrokerUnavailable("the embedded broker was stopped")
        self._bell.clear()
        if self._trouble is not None:
            raise BrokerUnavailable(str(self._trouble)) from self._trouble
        if self._clock.monotonic() >= ownership.renew_at and not await ownership.renew():
            await self._start_over(database)
            return
        if self._clock.monotonic() >= self._rescue_at:
            await self._rescue(database, ownership.owner)
        if await self._has_work(database):
            await self._take(database, ownership)
        try:
            async with asyncio.timeout(limits.EMBEDDED_POLL_SECONDS):
                await self._bell.wait()
        except TimeoutError:
            return

    async def _rescue(self, database: Database, me: int) -> None:
        """Give back what dead or silent peers hold."""

        def find(db: sqlite3.Connection) -> list[tuple[int, str, bool]]:
            peers = [
                (id, uuid, owners.is_dead(self._path, uuid), has_expired)
                for id, uuid, has_expired in queues.other_owners(db, me)
            ]
            return [(id, uuid, is_dead) for id, uuid, is_dead, has_expired in peers if is_dead or has_expired]

        for id, uuid, is_dead in await database.read(find):
            rescued = await database.write(partial(queues.rescue, owner=id, is_dead=is_dead))
            if is_dead:
                owners.forget(self._path, uuid)
            self._may_have_work = True
            emit(ClaimsRescued(owner=uuid, messages=rescued, is_dead=is_dead))
        if await database.read(queues.left_behind):
            await database.write(queues.remove_left_behind)
        self._rescue_at = self._clock.monotonic() + limits.RESCUE_SECONDS

    async def _has_work(self, database: Database) -> bool:
        """Tell whether a write is worth its fsync."""
        now = self._clock.monotonic()
        is_due = self._due_at is not None and now >= self._due_at
        version = await database.data_version()
        if version == self._seen_version and not self._may_have_work and not is_due:
            return False
        self._seen_version = version
        self._may_have_work = False
        wanted = {subscription.queue for subscription in self._subscriptions if subscription.room > 0}
        has_ready, due_seconds = await database.read(
            lambda db: (queues.has_ready(db, wanted), queues.seconds_until_due(db))
        )
        self._due_at = None if due_seconds is None else now + due_seconds
        return has_ready or (due_seconds is not None and due_seconds <= 0)

    async def _take(self, database: Database, ownership: Ownership) -> None:
        """Release what is due and claim up to the free prefetch of every subscription, in one commit."""
        self._subscriptions = [one for one in self._subscriptions if not one.is_over]
        wanted = [(one, one.room) for one in self._subscriptions if one.room > 0]

        def work(db: sqlite3.Connection) -> list[list[Claimed]] | None:
            queues.release_due(db, limits.RELEASE_ROWS_MAX)
            if not queues.is_owner(db, ownership.owner):
                return None
            return [
                queues.claim(db, ownership.owner, one.queue, room, is_ordered=one.queue in self._ordered)
                for one, room in wanted
            ]

        claimed = await database.write(work)
        if claimed is None:
            await self._start_over(database)
            return
        if any(claimed):
            failpoint("embedded.after_claim")
        self._may_have_work = True  # more may wait than was taken; the next turn looks
        for (subscription, _), batch in zip(wanted, claimed, strict=True):
            for one in batch:
                subscription.deliver(one)

    # --- called by its parts

    def _settle(self, claim: Claim, verb: Verb) -> bool:
        is_ours = self._ownership is not None and self._ownership.settle(claim, verb)
        self._ring()  # there is room for one more: its claim shares a commit with this one's end
        return is_ours

    def _ring(self) -> None:
        self._may_have_work = True
        self._bell.set()
        self._room_changed.set()

    def _note_trouble(self, error: BaseException) -> None:
        self._trouble = error
        self._last_error = error_line(error)
        self._set_state(ConnectionState.DISCONNECTED)
        self._bell.set()

    def _is_connected(self) -> bool:
        return self._state is ConnectionState.CONNECTED and not self._is_silent()

    def _is_silent(self) -> bool:
        """Whether a turn does not end: a file that hangs raises nothing, and must not look connected."""
        return self._state is ConnectionState.CONNECTED and self._turn_seconds() > limits.EMBEDDED_SILENT_SECONDS

    def _turn_seconds(self) -> float:
        return self._clock.monotonic() - self._turned_at

    def _trouble_now(self) -> str | None:
        return f"no answer for {self._turn_seconds():.0f} s" if self._is_silent() else self._last_error

    def _set_state(self, state: ConnectionState) -> None:
        if state is not self._state:
            self._state = state
            self._since = self._clock.now()
            self._room_changed.set()


def _prepare(db: sqlite3.Connection, topology: Topology) -> None:
    for statement in split_script(resources.files(__package__).joinpath("schema.sql").read_text("utf-8")):
        db.execute(statement)
    if not db.execute("select 1 from pragma_table_info('message') where name = 'routing_key'").fetchone():
        # the file of an older release
        db.execute("alter table message add column routing_key text not null default ''")
    if not db.execute("select 1 from pragma_table_info('queue') where name = 'owner_uuid'").fetchone():
        db.execute("alter table queue add column owner_uuid text")
    queues.declare(db, topology)
