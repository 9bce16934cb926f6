"""The broker port on SQS and SNS: there is no connection, only whether the last request was answered.

One task asks whether they answer, declares what is needed, and looks once a minute whether it is still there; publishes
begin when that has been done. A request without an answer, or with a 5xx, stops publishes and receives alike until the
next try succeeds; a throttling only slows down whoever met it. A key that nobody knows is `failed`: trying alone will
not help, but keys are exchanged, so it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, Final

from spoolproof import limits
from spoolproof.backoff import RandomSource, Rounds
from spoolproof.brokers.given_up import Place, dead_queue, place_of
from spoolproof.brokers.sqs.address import parse_url
from spoolproof.brokers.sqs.client import Clients, SqsError, Trouble, error_of
from spoolproof.brokers.sqs.consumer import Consumers, SqsSubscription
from spoolproof.brokers.sqs.events import SqsAway, SqsBack
from spoolproof.brokers.sqs.names import Names
from spoolproof.brokers.sqs.sender import Sender
from spoolproof.brokers.sqs.topology import Declarer
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    BrokerStatus,
    Capabilities,
    ConnectionState,
    ConnectionStatus,
    OnIncoming,
    Sink,
    Source,
    Spawn,
    Topology,
)
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

_KIND: Final = "sqs"
_PREFETCH = 100  #: of the queue for delays, whose messages are sent on at once
_COUNTS: Final = tuple(f"ApproximateNumberOfMessages{of}" for of in ("", "NotVisible", "Delayed"))


class SqsBroker:
    """See ports.broker.Broker."""

    capabilities = Capabilities(
        has_own_queues=False,
        tells_routing_key=False,
        has_returns=True,
        keeps_order=False,
        counts_deliveries=True,
        survives_restart=True,
        is_shared=True,
    )

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        random: RandomSource,
        spawn: Spawn,
        retry_first_seconds: float,
        is_required: bool,
        rounds_max: int,
        visibility_seconds: int = limits.SQS_VISIBILITY_SECONDS,
        check_seconds: float = limits.TOPOLOGY_CHECK_SECONDS,
    ) -> None:
        """url: `sqs://KEY_ID:SECRET@REGION?endpoint=…&prefix=…&wait=…`. Raises SettingsError."""
        self._address = parse_url(url)
        self._service = ""
        self._clock = clock
        self._random = random
        self._spawn_with = spawn
        self._quick = Rounds(limits.SQS_RECONNECT_SECONDS_MAX / 4, limits.SQS_RECONNECT_SECONDS_MAX)
        self._slow = Rounds(retry_first_seconds, limits.SQS_BACKOFF_SECONDS_MAX)
        self._is_required = is_required
        self._rounds_max = rounds_max
        self._visibility_seconds = visibility_seconds
        self._check_seconds = check_seconds
        self._clients = Clients(self._address)
        self._tasks: set[asyncio.Task[None]] = set()
        self._declarer: Declarer | None = None
        self._sender: Sender | None = None
        self._consumers: Consumers | None = None
        self._state = ConnectionState.DISCONNECTED
        self._since: datetime = clock.now()
        self._attempt = 0
        self._lost: SqsError | None = None  # why nothing is asked, until it answers again
        self._retry_at: datetime | None = None
        self._throttled: tuple[float, str] | None = None
        self._connected = asyncio.Event()
        self._stirred = asyncio.Event()
        self._is_stopped = False
        self._folded = Folded(clock)

    # --- the port ----------------------------------------------------------------------------------------------------

    async def start(self, topology: Topology) -> None:
        self._service = topology.service
        self._declarer = declarer = Declarer(topology, Names(self._address.prefix), self._clients, self._clock)
        self._sender = sender = Sender(
            topology, declarer, self._clients, clock=self._clock, spawn=self._spawn, on_trouble=self._note
        )
        self._consumers = Consumers(
            declarer,
            self._clients,
            sender,
            wait_seconds=self._address.wait_seconds,
            visibility_seconds=self._visibility_seconds,
            clock=self._clock,
            spawn=self._spawn,
            ready=self._connected.wait,
            on_trouble=self._note,
        )
        self._spawn(self._run(declarer, sender), "sqs.run")
        self._spawn(self._consumers.keep_held(), "sqs.keep")
        if declarer.has_fifo:
            self._consumers.subscribe(Place(declarer.delay, declarer.delay), _PREFETCH, None)
        if self._is_required:
            await self._until_connected()

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        if self._sender is None:
            raise BrokerUnavailable("the broker is not started")
        self._sender.submit(outgoing, token, sink)

    def room(self) -> int:
        return 0 if self._sender is None else self._sender.room()

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        if self._sender is None:
            await self._clock.sleep(timeout_seconds)
            return False
        return await self._sender.wait_for_room(timeout_seconds)

    async def subscribe(self, source: Source, prefetch: int, on_delivery: OnIncoming) -> SqsSubscription:
        if self._consumers is None or self._is_stopped:
            raise BrokerUnavailable("the broker is not started")
        return self._consumers.subscribe(place_of(source, self._service), prefetch, on_delivery)

    async def depth(self, queue: str) -> int | None:
        if self._declarer is None or self._state is not ConnectionState.CONNECTED:
            raise BrokerUnavailable("not connected to SQS")
        try:
            url = await self._declarer.url(queue)
            found = await self._clients.sqs("get_queue_attributes", QueueUrl=url, AttributeNames=list(_COUNTS))
        except SqsError as error:
            if error.trouble is Trouble.MISSING:
                return None
            raise BrokerUnavailable(f"queue {queue}: {error}") from error
        return sum(int(found.get("Attributes", {}).get(name, 0)) for name in _COUNTS)

    async def remove(self, queue: str) -> int:
        gone = 0
        for name in (queue, dead_queue(queue)):
            held = await self.depth(name)
            if held is None or self._declarer is None:
                continue
            try:
                await self._clients.sqs("delete_queue", QueueUrl=await self._declarer.url(name))
            except SqsError as error:
                raise BrokerUnavailable(f"queue {name}: {error}") from error
            self._declarer.miss(name)
            gone += held
        return gone

    def status(self) -> BrokerStatus:
        connections = tuple(
            ConnectionStatus(
                name=f"{purpose}-0",
                purpose=purpose,
                state=self._state,
                is_blocked=False,
                url=self._address.shown,
                since=self._since,
                attempt=self._attempt,
                last_error=None if self._lost is None else str(self._lost),
                retry_at=self._retry_at,
            )
            for purpose in ("publish", "consume")
        )
        return BrokerStatus(
            kind=_KIND, state=self._state, is_blocked=False, connections=connections, issues=tuple(self._issues())
        )

    async def stop(self) -> None:
        if self._sender is not None and not self._is_stopped:
            await self._sender.stop()
        if self._consumers is not None and not self._is_stopped:
            await self._consumers.stop()
        self._is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sender is not None:
            self._sender.give_up()
        await self._clients.close()
        self._set(ConnectionState.DISCONNECTED)

    # --- the task ----------------------------------------------------------------------------------------------------

    async def _run(self, declarer: Declarer, sender: Sender) -> None:
        """Connect and serve, for ever."""
        failures, away_since = 0, self._clock.monotonic()
        while True:
            self._attempt += 1
            self._set(ConnectionState.CONNECTING)
            connected_at = math.inf
            try:
                async with asyncio.timeout(limits.SETUP_SECONDS):
                    await self._clients.open()
                    await declarer.apply()
                connected_at = self._clock.monotonic()
                if self._lost is not None:
                    emit(SqsBack(url=self._address.shown, seconds=connected_at - away_since))
                self._lost, self._attempt, self._folded = None, 0, Folded(self._clock)
                self._set(ConnectionState.CONNECTED)
                sender.open(True)
                await self._serve(declarer)
            except Exception as error:  # whatever it is: a broker that asks no more must not look connected
                lost = error_of(error)
            if connected_at < math.inf:
                away_since = self._clock.monotonic()
                if away_since - connected_at >= limits.STABLE_SECONDS:
                    failures = 0  # one that flaps is not hammered
            failures += 1
            await self._wait(lost, failures)

    async def _serve(self, declarer: Declarer) -> None:
        """Look whether all is there, each minute or when somebody missed something. Raises SqsError in the end."""
        while self._lost is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check_seconds):
                    await self._stirred.wait()
            self._stirred.clear()
            if self._lost is None:
                try:
                    await declarer.check()
                except SqsError as error:
                    self._note(error)
                await self._clock.sleep(limits.TOPOLOGY_REPAIR_SECONDS)
        raise self._lost

    async def _wait(self, lost: SqsError, failures: int) -> None:
        seconds = (self._slow if lost.was_reached else self._quick).seconds(failures, self._random)
        if failures == 1 and lost.trouble is Trouble.AWAY:
            seconds = self._random.uniform(0.0, limits.RECONNECT_FIRST_SECONDS)
        self._lose(lost)
        self._retry_at = self._clock.now() + timedelta(seconds=seconds)
        url, trouble = self._address.shown, lost.trouble.value
        self._folded.emit(SqsAway(url=url, trouble=trouble, error=str(lost), retry_in_seconds=seconds))
        await self._clock.sleep(seconds)

    def _lose(self, error: SqsError) -> None:
        self._lost = error
        is_failed = error.trouble is Trouble.CREDENTIALS
        self._set(ConnectionState.FAILED if is_failed else ConnectionState.DISCONNECTED)
        if self._sender is not None:
            self._sender.open(False)
        self._stirred.set()

    async def _until_connected(self) -> None:
        """Return when connected; raise, with everything closed, when the rounds of other brokers would be over."""
        rounds = range(self._rounds_max - 1)
        seconds = sum(min(limits.CONNECT_ROUND_CAP_SECONDS, self._slow.first_seconds * 2**n) for n in rounds)
        try:
            async with asyncio.timeout(seconds + limits.CONNECT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            await self.stop()
            raise BrokerUnavailable(
                f"{self._address.shown}: {self._lost or 'no answer'}; gave up after {seconds:.0f} s "
                "(SPOOLPROOF_BROKER_MAX_RETRIES); or set SPOOLPROOF_BROKER_REQUIRED=false"
            ) from None

    # --- called by its parts -----------------------------------------------------------------------------------------

    def _note(self, error: SqsError) -> None:
        """A request of a publish or a receive failed."""
        if error.trouble is Trouble.THROTTLED:
            self._throttled = (self._clock.monotonic(), str(error))
        elif error.trouble is Trouble.MISSING:
            self._stirred.set()
        elif error.trouble in (Trouble.AWAY, Trouble.CREDENTIALS) and self._lost is None:
            self._lose(error)

    def _issues(self) -> list[str]:
        issues = [] if self._declarer is None else self._declarer.issues()
        issues += [] if self._sender is None else self._sender.issues()
        issues += [] if self._consumers is None else self._consumers.issues()
        if self._state is ConnectionState.FAILED:
            issues.append(f"SQS does not accept our credentials: {self._lost}")
        if self._throttled is not None and self._clock.monotonic() - self._throttled[0] < limits.BARRED_KEPT_SECONDS:
            issues.append(f"SQS throttles us: {self._throttled[1]}")
        return issues

    def _set(self, state: ConnectionState) -> None:
        self._retry_at = None
        if state is not self._state:
            self._state = state
            self._since = self._clock.now()
        (self._connected.set if state is ConnectionState.CONNECTED else self._connected.clear)()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._is_stopped:
            work.close()
            raise BrokerUnavailable("the broker is stopped")
        task = self._spawn_with(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
