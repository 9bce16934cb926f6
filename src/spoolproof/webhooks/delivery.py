"""What stands behind the relay of webhooks where another has a broker: it takes rows and answers each, once.

Every endpoint has a lane: at most 4 requests at a time, and a few rows that wait for them. An endpoint whose lane is
full, that is paused, or whose breaker is open has no room, and the relay leaves its rows in the store (`pauses.py`), so
that it costs the others nothing but the look. There is no limit over all lanes: one would let the slow ones use it up.

A confirm is a status of 2xx. Everything else the receiver did, silence included, is a failed attempt: it is sent again
under the same `webhook-id`. What was not sent is unknown to the relay, costs no attempt, and is read again: the breaker
opened meanwhile, the lease went, a drain began.

Must never happen: a row without an answer; two; an answer from within `submit`; a request under a lease that may have
run out; one lane waiting for another.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from spoolproof import limits
from spoolproof.backoff import RandomSource
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import BreakerOpen, EncodeError, StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.message import Message, Outgoing
from spoolproof.policies import Breaker, Policy, Registry
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS, Kind, Verdict, verdict_of
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.ports.broker import CONFIRMED, Failed, PublishOutcome, Sink, Spawn, Unknown
from spoolproof.ports.webhooks import Endpoint, EndpointState, Webhooks
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded
from spoolproof.webhooks.directory import Directory
from spoolproof.webhooks.events import EndpointDisabled, EndpointPaused, WebhookFailed
from spoolproof.webhooks.guard import Rules
from spoolproof.webhooks.request import body_of, headers_of, id_of
from spoolproof.webhooks.transport import Answer, LookUp, Unanswered, look_up, post

POLICY = "webhook"
_GONE = 410
_ASKS_FOR_TIME = (429, 503)
_SPREAD = 0.1
_NO_CALL = Call()  #: requests are no calls of a function; the breaker asks nothing of it
_NOTHING = verdict_of(Kind.LOCAL)


def webhook_policy(registry: Registry) -> Policy:
    """Return the policy `webhook` of a registry, a breaker for each endpoint: the user's if there is one, else made."""
    try:
        return registry.get(POLICY)
    except KeyError:
        return Policy(POLICY, Breaker(), preset="classic", lint_ignore={"W1"}, need=None, registry=registry)


@dataclass(slots=True)
class _Lane:
    """What one endpoint was given and has not answered. rests: it was full, and is not half empty yet; whoever reads
    rows for it then reads them for many, and not for one."""

    waiting: deque[tuple[Outgoing, object, Sink]] = field(default_factory=deque)  # bounded: see `rests`
    waiting_bytes: int = 0
    running: int = 0
    rests: bool = False

    def add(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        self.waiting.append((outgoing, token, sink))
        self.waiting_bytes += len(outgoing.message.body)
        if len(self.waiting) >= limits.WEBHOOK_LANE_ROWS_MAX or self.waiting_bytes >= limits.WEBHOOK_LANE_BYTES_MAX:
            self.rests = True

    def take(self) -> tuple[Outgoing, object, Sink]:
        taken = self.waiting.popleft()
        self.waiting_bytes -= len(taken[0].message.body)
        is_half = len(self.waiting) * 2 <= limits.WEBHOOK_LANE_ROWS_MAX
        if is_half and self.waiting_bytes * 2 <= limits.WEBHOOK_LANE_BYTES_MAX:
            self.rests = False
        return taken


class Delivery:
    """Sends webhooks; what `Relay` needs of a broker. may_send: whether a row's shard is still held."""

    def __init__(
        self,
        webhooks: Webhooks,
        directory: Directory,
        registry: Registry,
        rules: Rules,
        *,
        may_send: Callable[[object], bool],
        clock: Clock,
        random: RandomSource,
        spawn: Spawn,
        look_up: LookUp = look_up,
    ) -> None:
        self._webhooks = webhooks
        self._directory = directory
        self._policy = webhook_policy(registry)
        self._rules = rules
        self._may_send = may_send
        self._clock = clock
        self._random = random
        self._spawn = spawn
        self._look_up = look_up
        self._folded = Folded(clock)
        self._lanes: dict[str, _Lane] = {}
        self._noted: set[str] = set()  #: endpoints this process has seen fail since their last success
        self._is_draining = False
        self.attempts: defaultdict[tuple[str, str], int] = defaultdict(int)  # read at a scrape

    # --- what the relay asks -----------------------------------------------------------------------------------------

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        """Take a row; `sink` gets (token, outcome) exactly once, never from within this call."""
        lane = self._lanes.setdefault(outgoing.destination.name, _Lane())
        lane.add(outgoing, token, sink)
        self._begin(lane)

    def room(self) -> int:
        """Return how many rows would be taken now; who has none of it, `has_room` says."""
        return 0 if self._is_draining else limits.RELAY_BATCH_ROWS_MAX

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        """Return whether there is room, after `timeout_seconds` if there is none."""
        if not self.room():
            await self._clock.sleep(timeout_seconds)
        return self.room() > 0

    def has_room(self, name: str) -> bool:
        """Whether a row for this endpoint would be answered soon: sent, or refused for good."""
        endpoint = self._directory.endpoints.get(name)
        if endpoint is None:
            return self._directory.is_gone(name)
        if endpoint.state is EndpointState.DISABLED:
            return True
        if endpoint.state is EndpointState.PAUSED or name in self._directory.faults:
            return False
        lane, circuit = self._lanes.get(name), self._circuit(name)
        if lane is not None and lane.rests:
            return False
        return circuit is None or circuit.would_admit(self._policy.clock.monotonic())

    def without_room(self) -> list[str]:
        """Return the endpoints whose rows are best left where they are."""
        return [name for name in self._directory.names if not self.has_room(name)]

    def drain(self) -> None:
        """Send nothing more; what waits goes back, what was sent is waited for by the relay."""
        self._is_draining = True
        for lane in self._lanes.values():
            while lane.waiting:
                _, token, sink = lane.take()
                sink([(token, Unknown("not sent: the service stops"))])

    # --- one attempt -------------------------------------------------------------------------------------------------

    def _begin(self, lane: _Lane) -> None:
        while lane.waiting and lane.running < limits.WEBHOOK_CONCURRENCY:
            outgoing, token, sink = lane.take()
            lane.running += 1
            self._spawn(self._run(lane, outgoing, token, sink), f"webhook.{outgoing.destination.name}")

    async def _run(self, lane: _Lane, outgoing: Outgoing, token: object, sink: Sink) -> None:
        try:
            outcome = await self._outcome(outgoing.destination.name, outgoing.message, token)
        except Exception as error:  # whatever it is, a row without an answer would never be sent again
            outcome = Failed(error_line(error), spread=self._spread())
        lane.running -= 1
        self._begin(lane)
        sink([(token, outcome)])

    async def _outcome(self, name: str, message: Message, token: object) -> PublishOutcome:
        endpoint = self._directory.endpoints.get(name)
        if endpoint is None:
            return Failed(f"there is no endpoint {name!r} any more", is_final=True)
        if endpoint.state is EndpointState.DISABLED:
            return Failed(f"endpoint {name!r} is disabled: {endpoint.note}", is_final=True)
        if endpoint.state is EndpointState.PAUSED or self._is_draining or not self._may_send(token):
            return Unknown("not sent")
        if message.expires_at is not None and message.expires_at <= self._clock.now():
            return Failed(f"expired at {message.expires_at.isoformat()}", is_final=True)
        try:
            body = body_of(message)
        except EncodeError as error:
            return Failed(str(error), is_final=True)
        circuit, permit = self._circuit(name), None
        if circuit is not None:
            try:
                permit = circuit.enter(_NO_CALL, self._policy.clock.monotonic())
            except BreakerOpen as rejection:
                return Unknown(f"not sent: {rejection}")
        verdict = _NOTHING
        try:
            headers = headers_of(message, body, self._directory.keys_of(name), self._clock.now())
            answer = await post(endpoint.url, headers, body, self._rules, self._look_up)
            verdict = _verdict_of(answer)
        finally:
            if circuit is not None:
                circuit.leave(permit, _NO_CALL, verdict, self._policy.clock.monotonic())
        return await self._judge(endpoint, message, answer)

    async def _judge(self, endpoint: Endpoint, message: Message, answer: Answer | Unanswered) -> PublishOutcome:
        """Note how an attempt ended, and return what it means for its row."""
        name = endpoint.name
        if isinstance(answer, Answer) and 200 <= answer.status < 300:
            failpoint("webhook.after_send")
            self.attempts[name, "delivered"] += 1
            if endpoint.failing_since is not None or name in self._noted:
                await self._note(endpoint, None)
            return CONFIRMED
        detail = answer.detail if isinstance(answer, Unanswered) else _said(answer)
        self.attempts[name, answer.outcome if isinstance(answer, Unanswered) else "failed"] += 1
        self._folded.emit(WebhookFailed(endpoint=name, id=id_of(message), error=detail))
        if isinstance(answer, Answer) and answer.status == _GONE:
            await self._disable(endpoint, detail)
            return Failed(detail, is_final=True)
        await self._note(endpoint, detail)
        is_asked = isinstance(answer, Answer) and answer.status in _ASKS_FOR_TIME
        return Failed(
            detail,
            at_least_seconds=answer.retry_after_seconds if isinstance(answer, Answer) and is_asked else 0.0,
            spread=self._spread(),
        )

    async def _note(self, endpoint: Endpoint, failure: str | None) -> None:
        name = endpoint.name
        try:
            state = await self._webhooks.note(name, failure, limits.WEBHOOK_FAILING_SECONDS_MAX)
        except StoreUnavailable:
            return  # the fate of the row cannot be written either, so the attempt counts for nothing
        if failure is None:
            self._noted.discard(name)
            self._folded.over(WebhookFailed, name)
            self._directory.update(name, state, failing=False)
            return
        self._noted.add(name)
        known = self._directory.endpoints.get(name)
        self._directory.update(name, state, failing=True)
        if state is EndpointState.PAUSED and known is not None and known.state is EndpointState.ACTIVE:
            emit(EndpointPaused(endpoint=name, error=failure))

    async def _disable(self, endpoint: Endpoint, detail: str) -> None:
        known = self._directory.endpoints.get(endpoint.name)
        if known is not None and known.state is EndpointState.DISABLED:
            return  # four may learn it at once
        self._directory.update(endpoint.name, EndpointState.DISABLED, failing=True)
        emit(EndpointDisabled(endpoint=endpoint.name, error=detail))
        try:
            await self._webhooks.change(endpoint.name, EndpointState.DISABLED, detail)
        except StoreUnavailable:
            return  # the row is still there, and will be answered 410 again

    def _circuit(self, name: str) -> Circuit | None:
        return self._policy.for_key(name).machines.circuit

    def _spread(self) -> float:
        return self._random.uniform(1.0 - _SPREAD, 1.0 + _SPREAD)


def _verdict_of(answer: Answer | Unanswered) -> Verdict:
    """Say what an end says of the endpoint; one that refuses an event has answered."""
    if isinstance(answer, Unanswered):
        if answer.outcome == "blocked":
            return _NOTHING
        return verdict_of(Kind.TRANSIENT, is_unknown=answer.outcome == "unknown", reason=answer.detail)
    if answer.status == 429:
        return verdict_of(Kind.OVERLOADED, reason=_said(answer))
    return verdict_of(Kind.TRANSIENT, reason=_said(answer)) if answer.status >= 500 else SUCCESS


def _said(answer: Answer) -> str:
    more = "; redirects are not followed" if 300 <= answer.status < 400 else f": {answer.text}" if answer.text else ""
    return f"answered {answer.status}{more}"
