"""A broker behind the policy `broker`: one that takes publishes and does not answer is left alone for a while.

A broker port of its own around another, so that relay and consumers keep their one way to publish. While the breaker is
open there is no room, so rows stay where they are, uncounted; when it probes, there is room for as many publishes as it
may send probes. A confirm, a return and a refusal are answers, a nack says nothing of the connection, nor does a
channel that the broker closed over a neighbour, and no answer is a failure.

The connection knows better than a timer when the broker is back: the first look at a publish connection that was not
there when the breaker opened makes it probe at once, so that the first confirm follows a reconnect as it always did.

A publish costs one comparison and one short lock here: while the breaker is closed every publish of one caller shares
one sink.

Declare `Policy("broker", Breaker(…))` before the service starts to have other thresholds, or set them:
`SPOOLPROOF_POLICY_BROKER_OPEN_SECONDS`. Two services of one process that use different brokers need a registry each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from spoolproof.errors import BreakerOpen, BrokerUnavailable
from spoolproof.message import Outgoing
from spoolproof.policies import Breaker, Policy, Registry
from spoolproof.policies.call import Call
from spoolproof.policies.events import BreakerChanged
from spoolproof.policies.judging.verdict import SUCCESS, Kind, verdict_of
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.ports.broker import (
    Broker,
    BrokerStatus,
    ConnectionState,
    Nacked,
    OnIncoming,
    PublishOutcome,
    Sink,
    Source,
    Subscription,
    Topology,
    Unknown,
)

NAME = "broker"
_LOOK_SECONDS = 0.25  #: how late a reconnect is noticed by a caller who waits while the breaker is open
_NO_CALL = Call()  #: publishes are no calls of a function; the breaker asks nothing of it
_NOTHING = verdict_of(Kind.LOCAL)


def broker_policy(registry: Registry) -> Policy:
    """Return the policy `broker` of a registry: the user's if there is one, else made: 5 in a row, 30 s open."""
    try:
        return registry.get(NAME)
    except KeyError:
        return Policy(NAME, Breaker(), preset="classic", lint_ignore={"W1"}, registry=registry)


class ProtectedBroker:
    """Implements `ports.broker.Broker` around `inner`."""

    def __init__(self, inner: Broker, registry: Registry) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities
        self._policy = policy = broker_policy(registry)
        self._clock = policy.clock
        self._circuit: Circuit | None = policy.machines.circuit
        self._last: _Learner | None = None
        self._known: frozenset[object] = frozenset()  #: publish connections there were when the breaker opened
        self._is_stopping = False
        if policy.state in ("open", "half_open"):
            policy.reset("a service starts")  # what an earlier one of this process knew is of another connection
        self._unwatch = policy.watch(self._changed)

    # --- the port ----------------------------------------------------------------------------------------------------

    async def start(self, topology: Topology) -> None:
        """See the port."""
        await self.inner.start(topology)

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        """See the port; BrokerUnavailable also when the breaker rejects."""
        circuit = self._circuit
        if circuit is None:
            self.inner.submit(outgoing, token, sink)
            return
        now = self._clock.monotonic()
        try:
            permit = circuit.enter(_NO_CALL, now)
        except BreakerOpen as rejection:
            raise BrokerUnavailable(str(rejection)) from rejection
        learner = self._last
        if learner is None or learner.permit != permit or learner.sink != sink:
            self._last = learner = _Learner(self, circuit, permit, sink)
        try:
            self.inner.submit(outgoing, token, learner)
        except BaseException:
            circuit.leave(permit, _NO_CALL, _NOTHING, now)  # nothing was sent
            raise

    def room(self) -> int:
        """See the port; 0 while the breaker is open, probes_max at most while it probes."""
        room = self.inner.room()
        circuit = self._circuit
        if room == 0 or circuit is None:
            return room
        now = self._clock.monotonic()
        state = circuit.state(now)
        if state == "closed" or not circuit.is_moving:
            return room
        if state == "open" and self._has_come_up():
            circuit.probe_now("connected", now)
        return min(room, self._policy.probes_max) if circuit.would_admit(now) else 0

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        """See the port."""
        ends_at = self._clock.monotonic() + timeout_seconds
        while self.room() == 0:
            left = ends_at - self._clock.monotonic()
            if left <= 0:
                return False
            if self.inner.room() > 0:
                await self._policy.wait_admission(min(left, _LOOK_SECONDS))
            elif not await self.inner.wait_for_room(left):
                return False
        return True

    async def subscribe(self, source: Source, prefetch: int, on_delivery: OnIncoming) -> Subscription:
        """See the port; consuming is never held back."""
        return await self.inner.subscribe(source, prefetch, on_delivery)

    async def depth(self, queue: str) -> int | None:
        """See the port."""
        return await self.inner.depth(queue)

    async def remove(self, queue: str) -> int:
        """See the port."""
        return await self.inner.remove(queue)

    def status(self) -> BrokerStatus:
        """See the port; with an issue while publishing waits."""
        status = self.inner.status()
        state = self._policy.state
        if state == "closed" or status.state is not ConnectionState.CONNECTED or not self._policy.gates:
            return status
        issue = f"publishing waits: the breaker of policy {NAME!r} is {state}"
        return replace(status, issues=(*status.issues, issue))

    async def stop(self) -> None:
        """See the port."""
        self._is_stopping = True  # what is unanswered now says nothing of the broker
        self._unwatch()
        await self.inner.stop()

    # --- learn -------------------------------------------------------------------------------------------------------

    def learn(self, circuit: Circuit, permit: object, results: Sequence[tuple[object, PublishOutcome]]) -> None:
        """Tell the breaker how publishes admitted under `permit` ended."""
        now = self._clock.monotonic()
        for _, outcome in results:
            verdict = SUCCESS
            if isinstance(outcome, Unknown) and outcome.is_silence:
                verdict = verdict_of(Kind.TRANSIENT, is_unknown=True, reason=outcome.detail)
            elif isinstance(outcome, Nacked | Unknown):
                verdict = _NOTHING
            circuit.leave(permit, _NO_CALL, _NOTHING if self._is_stopping else verdict, now)

    def _changed(self, change: BreakerChanged) -> None:
        if change.new == "open":
            self._known = self._connections()

    def _has_come_up(self) -> bool:
        """Whether there is a publish connection that no failure has spoken of; once each."""
        connections = self._connections()
        is_new = not connections <= self._known
        self._known |= connections
        return is_new

    def _connections(self) -> frozenset[object]:
        return frozenset(
            (one.name, one.since)
            for one in self.inner.status().connections
            if one.purpose == "publish" and one.state is ConnectionState.CONNECTED and not one.is_blocked
        )


class _Learner:
    """A sink that lets the breaker hear first, so that whoever refills the room sees what is true now."""

    __slots__ = ("_broker", "_circuit", "permit", "sink")

    def __init__(self, broker: ProtectedBroker, circuit: Circuit, permit: object, sink: Sink) -> None:
        self._broker = broker
        self._circuit = circuit
        self.permit = permit
        self.sink = sink

    def __call__(self, results: Sequence[tuple[object, PublishOutcome]]) -> None:
        self._broker.learn(self._circuit, self.permit, results)
        self.sink(results)


class BrokerHandle:
    """The broker as the application may see it."""

    def __init__(self, status: Callable[[], BrokerStatus]) -> None:
        self._status = status

    @property
    def status(self) -> BrokerStatus:
        """The state of every connection, without I/O. Raises NotStarted."""
        return self._status()
