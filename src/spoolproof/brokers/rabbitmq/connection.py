"""The life of one connection: attempts in rounds, back-off, set-up, loss, and again.

::

    disconnected ──attempt──▶ connecting ──set up──▶ connected
         ▲                        │                      │
         └────── round failed ◀───┴──────── lost ◀───────┘
    failed: disconnected, after the configured rounds of a required broker; attempts go on, one round a minute

A round tries each URL once without waiting. Rounds wait 1, 2, 4 … 60 s ± 20 %; the first after the loss of a good
connection only 0 to 250 ms. While a round waits, every URL is probed by a bare TCP connect; one that turns from
refusing to accepting ends the wait, so a broker's return is used within a second in spite of the 60 s.

A node that is frozen keeps its connections; nothing is heard from it. After 10 s such a connection is given up without
waiting for the dead peer, and the next URL is tried.

Must never happen: an await on the broker without a limit; an attempt that starts before the last one is gone.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from spoolproof import limits
from spoolproof.backoff import RandomSource, Rounds
from spoolproof.brokers.rabbitmq.events import (
    ConnectionAttempted,
    ConnectionBlocked,
    ConnectionLost,
    ConnectionUnblocked,
)
from spoolproof.brokers.rabbitmq.failure import Failure, failure_of, one_line
from spoolproof.brokers.rabbitmq.pika_internals import Connection, abort
from spoolproof.brokers.rabbitmq.probe import Probe
from spoolproof.brokers.rabbitmq.rpc import guarded
from spoolproof.brokers.rabbitmq.urls import Address
from spoolproof.brokers.rabbitmq.versions import VERSION_MIN, is_too_old, version_of
from spoolproof.clock import Clock
from spoolproof.errors import BrokerTooOld, BrokerUnavailable
from spoolproof.ports.broker import ConnectionState, ConnectionStatus
from spoolproof.telemetry.events import ERROR, INFO, WARNING, emit
from spoolproof.telemetry.folding import Folded

_AFTER_TURN_SECONDS = 0.1  #: many processes see a broker return at the same moment


class ConnectionUser(Protocol):
    """Who works on a connection: the publisher or the consumers. Only `opened` may wait."""

    async def opened(self, connection: Connection) -> None:
        """Set up on a fresh connection, which counts as connected once this returns."""

    def lost(self, reason: str) -> None:
        """Forget the connection; called whenever one closes, perhaps before its `opened` was."""

    def blocked(self, is_blocked: bool) -> None:
        """The broker stopped reading what this connection sends, or reads again."""


class BrokerConnection:
    """Keeps one connection of a purpose open for its user, over URLs in rotation."""

    def __init__(
        self,
        name: str,
        purpose: str,
        addresses: Sequence[Address],
        user: ConnectionUser,
        *,
        identity: str,
        clock: Clock,
        random: RandomSource,
        retry_first_seconds: float,
        rounds_max: int | None,
        is_cut: bool = False,
        is_told: bool = True,
    ) -> None:
        """addresses: in the order to try. identity: `<service>/<host>/<pid>`. rounds_max: None for an optional one.
        is_cut: it ends without a word, for the broker keeps the order of what it takes back then. is_told: whether the
        log speaks of it."""
        self.name = name
        self.purpose = purpose
        self._is_cut = is_cut
        self._is_silent = not is_told
        self.start_settled = asyncio.Event()  #: set once: connected, or `start_error` says why not
        self.start_error: BrokerUnavailable | None = None
        self._addresses = addresses
        self._user = user
        self._identity = f"{identity}/{self.name}"
        self._clock = clock
        self._random = random
        self._backoff = Rounds(retry_first_seconds, limits.CONNECT_ROUND_CAP_SECONDS)
        self._rounds_max = rounds_max
        self._probe = Probe(addresses, clock, random)
        self._address = addresses[0]
        self._rotation = 0
        self._attempts = 0
        self._rounds = 0  # of this outage
        self._failures = 0  # in a row, for the back-off; kept over connections that do not last
        self._connection: Connection | None = None
        self._closed: asyncio.Future[BaseException] | None = None
        self._state = ConnectionState.DISCONNECTED
        self._since = clock.now()
        self._last_error: str | None = None
        self._retry_at: datetime | None = None
        self._blocked_at: float | None = None
        self._blocked_seconds = 0.0  # before that
        self._connected_at = 0.0
        self._flaps = 0  # connections in a row that did not last
        self._last_loss: str | None = None
        self._bytes_heard, self._heard_at = -1, 0.0
        self._folded = Folded(clock)
        self._is_told = False  # whether the log speaks of the trouble that this connection has

    async def run(self) -> None:
        """Connect, and connect again after every loss, until cancelled."""
        while True:
            closed = await self._connect()
            self._connected_at = self._clock.monotonic()
            error = await asyncio.shield(closed)  # cancelling us must not cancel what stop() waits for
            self._last_error = one_line(error)
            self._note_blocked(False)
            seconds = self._seconds_after_loss(self._clock.monotonic() - self._connected_at)
            if not self._is_silent:
                self._is_told |= self._folded.emit(
                    ConnectionLost(
                        connection=self.name, url=self._address.shown, error=self._last_error, retry_in_seconds=seconds
                    )
                )
            self._attempts = self._rounds = 0
            await self._wait(ConnectionState.DISCONNECTED, seconds)

    async def stop(self) -> None:
        """Close gracefully within a limit, then by force. Call after `run` has ended. Idempotent."""
        connection, closed = self._connection, self._closed
        if connection is not None and closed is not None:
            if connection.is_open and not self._is_cut:
                connection.close()
                await asyncio.wait([closed], timeout=limits.CLOSE_SECONDS)
            await self._drop(BrokerUnavailable("stopped"))
        self._set(ConnectionState.DISCONNECTED)

    def abort(self, reason: str) -> None:
        """Give up the current connection, if there is one; the loop connects again."""
        if self._connection is not None:
            abort(self._connection, BrokerUnavailable(reason))

    @property
    def state(self) -> ConnectionState:
        """Where it stands."""
        return self._state

    def tick(self) -> None:
        """Give up a connection from which nothing is heard any more; called every second."""
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        now = self._clock.monotonic()
        silence_seconds = max(limits.SILENCE_SECONDS, 1.25 * self._address.heartbeat_seconds)
        if connection.bytes_received != self._bytes_heard:
            self._bytes_heard, self._heard_at = connection.bytes_received, now
        elif now - self._heard_at >= silence_seconds:
            self.abort(f"nothing heard for {silence_seconds:g} s: the node is dead, frozen or cut off")
        if self._state is ConnectionState.CONNECTED and now - self._connected_at >= limits.STABLE_SECONDS:
            self._flaps = 0

    def issues(self) -> list[str]:
        """Return a sentence for what is wrong although there is a connection now and then."""
        issues = []
        blocked_seconds = self._blocked_for()
        if blocked_seconds > limits.BLOCKED_ISSUE_SECONDS:
            issues.append(f"{self.name}: the broker has read no publishes for {blocked_seconds:.0f} s (resource alarm)")
        if self._flaps >= limits.FLAPS_ISSUE_COUNT:
            issues.append(f"{self.name}: lost {self._flaps} times in a row right after connecting: {self._last_loss}")
        return issues

    def status(self) -> ConnectionStatus:
        """Return its state for people; no I/O."""
        return ConnectionStatus(
            name=self.name,
            purpose=self.purpose,
            state=self._state,
            is_blocked=self._blocked_at is not None,
            url=self._address.shown,
            since=self._since,
            attempt=self._attempts,
            last_error=self._last_error,
            retry_at=self._retry_at,
            blocked_seconds=self._blocked_seconds + self._blocked_for(),
        )

    # --- rounds ------------------------------------------------------------------------------------------------------

    async def _connect(self) -> asyncio.Future[BaseException]:
        """Return when connected and set up, with the future of the loss."""
        while True:
            for is_last in [*[False] * (len(self._addresses) - 1), True]:
                self._address = self._addresses[self._rotation % len(self._addresses)]
                self._rotation += 1
                self._attempts += 1
                self._set(ConnectionState.CONNECTING)
                failure = await self._attempt(self._address)
                self._probe.saw(self._address, failure is None or failure.was_reached)
                if failure is None and self._closed is not None:
                    return self._connected(self._closed)
                if failure is not None:
                    self._last_error = failure.text
                    seconds = self._end_round(failure) if is_last else 0.0
                    self._log_attempt(failure, seconds)
            has_failed = self._rounds_max is not None and self._rounds >= self._rounds_max
            await self._wait(ConnectionState.FAILED if has_failed else ConnectionState.DISCONNECTED, seconds)

    def _connected(self, closed: asyncio.Future[BaseException]) -> asyncio.Future[BaseException]:
        self._log_attempt(None, 0.0)
        self._last_error = None
        self._set(ConnectionState.CONNECTED)
        self.start_settled.set()
        return closed

    def _end_round(self, failure: Failure) -> float:
        """Count a failed round; return how long to wait for the next."""
        self._rounds += 1
        self._failures += 1
        if self._rounds_max is None or self._rounds < self._rounds_max:
            return self._backoff.seconds(self._failures, self._random)
        if not self.start_settled.is_set():
            error = BrokerTooOld if failure.outcome == "too_old" else BrokerUnavailable
            self.start_error = error(
                f"{self._address.shown}: {failure.text}; gave up after {self._rounds} rounds "
                "(SPOOLPROOF_BROKER_MAX_RETRIES); start the broker, or set SPOOLPROOF_BROKER_REQUIRED=false"
            )
            self.start_settled.set()
        return limits.CONNECT_ROUND_CAP_SECONDS

    def _seconds_after_loss(self, lasted_seconds: float) -> float:
        if lasted_seconds >= limits.STABLE_SECONDS:
            self._failures = 0
        if self._failures == 0:
            seconds = self._random.uniform(0.0, limits.RECONNECT_FIRST_SECONDS)
        else:
            seconds = self._backoff.seconds(self._failures, self._random)
        if lasted_seconds < limits.STABLE_SECONDS:
            self._failures += 1  # it flaps: the next loss waits longer
            self._flaps += 1
            self._last_loss = self._last_error
        else:
            self._flaps = 0
        return seconds

    async def _wait(self, state: ConnectionState, seconds: float) -> None:
        self._set(state)
        self._retry_at = self._clock.now() + timedelta(seconds=seconds)
        if await self._probe.wait(seconds):
            self._failures = 0  # the broker is coming back: what fails now is its start, not an outage
            await self._clock.sleep(self._random.uniform(0.0, _AFTER_TURN_SECONDS))

    # --- one attempt -------------------------------------------------------------------------------------------------

    async def _attempt(self, address: Address) -> Failure | None:
        """Open and set up one connection; None when it is usable."""
        try:
            connection = await self._open(address)
            _check_version(connection)
            async with asyncio.timeout(limits.SETUP_SECONDS):
                await self._user.opened(connection)
        except Exception as error:  # pika hands on whatever it met on the way: socket, TLS, protocol, its own asserts
            await self._drop(error)
            return failure_of(error)
        if not connection.is_open:  # lost again while the user was setting up
            return failure_of(BrokerUnavailable("the connection was lost during set-up"))
        return None

    async def _open(self, address: Address) -> Connection:
        """Return an open AMQP connection. Raises whatever stopped it; TimeoutError after the limit of an attempt."""
        socket.socket().close()  # pika meets "too many open files" in a callback, and tells nobody
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[BaseException | None] = loop.create_future()
        closed: asyncio.Future[BaseException] = loop.create_future()

        def on_open(_: Connection) -> None:
            if not opened.done():
                opened.set_result(None)

        def on_open_error(_: Connection, error: BaseException) -> None:
            if not opened.done():
                opened.set_result(error)
            closed.set_result(error)

        def on_close(_: Connection, error: BaseException) -> None:
            try:
                self._user.lost(one_line(error))
            finally:
                closed.set_result(error)

        self._closed = closed
        self._bytes_heard = -1
        self._connection = connection = Connection(
            address.parameters(self._identity), guarded(on_open), guarded(on_open_error), guarded(on_close)
        )
        connection.add_on_connection_blocked_callback(guarded(lambda *_: self._on_blocked(True)))
        connection.add_on_connection_unblocked_callback(guarded(lambda *_: self._on_blocked(False)))
        async with asyncio.timeout(limits.CONNECT_SECONDS):
            error = await opened
        if error is not None:
            raise error
        return connection

    async def _drop(self, reason: Exception) -> None:
        """Abort the current connection, open or opening, and wait until it is gone."""
        if self._connection is not None and self._closed is not None and not self._closed.done():
            abort(self._connection, reason)
            await asyncio.wait([self._closed], timeout=limits.CLOSE_SECONDS)

    def _note_blocked(self, is_blocked: bool) -> None:
        self._blocked_seconds += self._blocked_for()
        self._blocked_at = self._clock.monotonic() if is_blocked else None

    def _blocked_for(self) -> float:
        return 0.0 if self._blocked_at is None else self._clock.monotonic() - self._blocked_at

    def _on_blocked(self, is_blocked: bool) -> None:
        self._note_blocked(is_blocked)
        emit((ConnectionBlocked if is_blocked else ConnectionUnblocked)(connection=self.name))
        self._user.blocked(is_blocked)

    def _set(self, state: ConnectionState) -> None:
        self._retry_at = None
        if state is not self._state:
            self._state = state
            self._since = self._clock.now()

    def _log_attempt(self, failure: Failure | None, retry_in_seconds: float) -> None:
        """Write a line; failures of one kind share one a minute. A connection after them is told as loudly."""
        if self._is_silent:
            return
        attempted = ConnectionAttempted(
            connection=self.name,
            url=self._address.shown,
            attempt=self._attempts,
            round=(self._attempts - 1) // len(self._addresses) + 1,
            outcome="connected" if failure is None else failure.outcome,
            error="" if failure is None else failure.text,
            retry_in_seconds=retry_in_seconds,
        )
        if failure is None:
            emit(attempted, level=WARNING if self._is_told else INFO)
            self._is_told = False
        else:
            self._is_told |= self._folded.emit(attempted, level=ERROR if failure.needs_operator else WARNING)


def _check_version(connection: Connection) -> None:
    text = version_of(connection)
    if is_too_old(text):
        needed = ".".join(map(str, VERSION_MIN))
        raise BrokerTooOld(f"RabbitMQ {text} is too old; {needed} or newer is needed")
