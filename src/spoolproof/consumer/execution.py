"""One delivery, as a straight list of steps: receive, admit, dedupe, run, commit, settle.

The ack comes last, after the commit of the effect, after the dead letter is durable, or after the retry copy is
confirmed. Killed at any line, the broker delivers again and the inbox drops what was done.

What never counts as an attempt: the store or the broker being away (the gate holds the delivery and the same attempt
runs again), a limit of ours being reached, and cancellation by a drain (the delivery is not settled; the broker takes
it back).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.clock import Clock
from spoolproof.codec import DecodeFailure, TypeRegistry
from spoolproof.consumer.copies import Copies, retry_copy
from spoolproof.consumer.dedupe import inbox_key
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.failure import Decision, GiveUp, RunAgain, SendCopy, decide, deferred_since
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.handler import Dedupe, Handler
from spoolproof.consumer.policy_gate import state_of
from spoolproof.consumer.router import Router
from spoolproof.dead_letters.record import attempt_of, consumer_dead_letter, history_of, history_text
from spoolproof.errors import EncodeError, LimitReached, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids, derived_id
from spoolproof.message import ATTEMPT, FIRST_DEFERRED_AT, REPLAY_OF, Message
from spoolproof.outbox.publish import Publisher, handling
from spoolproof.outbox.transaction import PendingPublishes, Transaction, current, unit_of_work
from spoolproof.outcome import Ack, Outcome
from spoolproof.policies.retry import within_delivery
from spoolproof.policies.timeout import within
from spoolproof.ports.broker import Delivery as BrokerDelivery
from spoolproof.ports.dead_letters import Attempt
from spoolproof.ports.store import Store

logger = logging.getLogger("spoolproof.consumer")

_RENEWED_TIER_SECONDS = limits.TIERS_SECONDS[0]
_HELD_TIER_SECONDS = 60  #: how long a copy stays away that the gate would only hold again


@dataclass(slots=True)
class Work:
    """A delivery and what is known of it so far. key: of the inbox, None for a message without an id."""

    delivery: BrokerDelivery
    message: Message
    queue: str
    key: str | None
    failed: int
    history: list[Attempt] = field(default_factory=list)
    first_deferred_at: datetime | None = None

    @property
    def is_replay(self) -> bool:
        """Whether an operator sent it again."""
        return REPLAY_OF in self.message.headers

    @property
    def is_again(self) -> bool:
        """Whether the message was tried before, as far as anybody knows."""
        return self.failed > 0 or self.first_deferred_at is not None or self.delivery.delivery_count > 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A payload and the handler that takes it."""

    handler: Handler
    payload: object


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no handler can take the message."""

    reason: str
    detail: str


class Execution:
    """Runs deliveries of all queues of a service."""

    def __init__(
        self,
        *,
        store: Store,
        router: Router,
        registry: TypeRegistry,
        publisher: Publisher,
        copies: Copies,
        gate: Gate,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
        host: str,
    ) -> None:
        self._store = store
        self._router = router
        self._registry = registry
        self._publisher = publisher
        self._copies = copies
        self._gate = gate
        self._clock = clock
        self._ids = ids
        self._random = random
        self._host = host

    async def handle(self, delivery: BrokerDelivery) -> None:
        """Bring one delivery to its end and settle it. Raises GateClosing when it should go back unstarted."""
        work = self._receive(delivery)
        admitted = self._admit(work)
        if isinstance(admitted, Refusal):
            await self._bury(work, admitted.reason, None, admitted.detail)
        else:
            await self._run_to_end(work, admitted)
        failpoint("consumer.before_ack")
        delivery.ack()
        failpoint("consumer.after_ack")

    async def renew(self, delivery: BrokerDelivery) -> None:
        """Put a copy, whose deliveries the broker counts anew, in the place of one that it would soon give up on."""
        if await self._send_copy(self._receive(delivery), SendCopy(_RENEWED_TIER_SECONDS, counts=False)):
            delivery.ack()
        else:
            delivery.nack()

    # --- receive, admit ----------------------------------------------------------------------------------------------

    def _receive(self, delivery: BrokerDelivery) -> Work:
        failpoint("consumer.after_receive")
        message = delivery.message
        attempt = message.headers.get(ATTEMPT, 0)
        return Work(
            delivery=delivery,
            message=message,
            queue=delivery.queue,
            key=inbox_key(message),
            failed=attempt if isinstance(attempt, int) and attempt > 0 else 0,
            history=list(history_of(message)),
            first_deferred_at=_instant_of(message.headers.get(FIRST_DEFERRED_AT)),
        )

    def _admit(self, work: Work) -> Admitted | Refusal:
        message = work.message
        if work.delivery.fault is not None:
            return Refusal("decode", work.delivery.fault)
        if len(message.body) > limits.BODY_BYTES_MAX:
            return Refusal("too_large", f"{len(message.body)} bytes, at most {limits.BODY_BYTES_MAX}")
        if message.expires_at is not None and message.expires_at <= self._clock.now():
            return Refusal("expired", f"expired at {message.expires_at.isoformat()}")
        type_name = self._router.type_of(work.queue, message)
        handler = self._router.handler_for(work.queue, type_name)
        if handler is None:
            return Refusal("unknown_type", f"no handler on queue {work.queue!r} takes type {type_name!r}")
        try:
            payload = self._registry.decode(message, type_name)
        except DecodeFailure as error:
            return Refusal(error.reason, str(error))
        failpoint("consumer.after_decode")
        return Admitted(handler, payload)

    # --- run ---------------------------------------------------------------------------------------------------------

    async def _run_to_end(self, work: Work, admitted: Admitted) -> None:
        """Run attempts until the message is done, or lives on as a copy or a dead letter."""
        held_until = self._clock.monotonic() + limits.GATE_HOLD_SECONDS_MAX
        while True:
            if not await self._gate.wait(until=held_until):
                # before the broker takes it away, and counts that; one that cannot be sent again waits on
                if work.delivery.is_stale or await self._send_copy(work, SendCopy(_HELD_TIER_SECONDS, counts=False)):
                    return
                held_until = math.inf
                continue
            try:
                await self._attempt(work, admitted)
                return
            except (Unavailable, LimitReached) as error:
                self._gate.shut(error)
                continue
            except Exception as error:
                failure = error
            failpoint("consumer.after_failure")
            decision = self._decide(work, admitted.handler, failure)
            if isinstance(decision, RunAgain):
                await self._clock.sleep(spread_seconds(decision.seconds, ratio=0.2, source=self._random))
            elif isinstance(decision, SendCopy) and await self._send_copy(work, decision):
                return
            else:
                given_up = decision if isinstance(decision, GiveUp) else GiveUp("encode")
                await self._bury(work, given_up.reason, failure, given_up.detail)
                return

    async def _attempt(self, work: Work, admitted: Admitted) -> None:
        token = handling.set(work.message)
        try:
            if admitted.handler.dedupe is Dedupe.NONE or work.key is None:
                await self._attempt_without_inbox(work, admitted)
            elif admitted.handler.wants_transaction:
                await self._attempt_in_transaction(work, admitted, work.key)
            else:
                await self._attempt_then_record(work, admitted, work.key)
        finally:
            handling.reset(token)

    async def _attempt_in_transaction(self, work: Work, admitted: Admitted, key: str) -> None:
        """The inbox row is first in the handler's transaction: both commit, or neither."""
        async with unit_of_work(self._store, self._publisher) as tx:
            if not await self._store.inbox.record(tx.inner, work.queue, key):
                logger.info("consumer.duplicate_skipped queue=%s id=%s", work.queue, work.message.id)
                # another copy succeeded before this replay came: its dead letter would wait for ever
                await self._resolve(work, tx, key)
                return
            failpoint("consumer.after_inbox")
            joined = current.set(tx)
            try:
                await self._call(work, admitted, tx)
            finally:
                current.reset(joined)
            await self._resolve(work, tx, key)
            failpoint("consumer.before_commit")
        failpoint("consumer.after_commit")

    async def _attempt_then_record(self, work: Work, admitted: Admitted, key: str) -> None:
        """A handler without `tx`: no transaction stays open while it calls the world. Its publishes and the inbox row
        commit together after it; a crash before that runs it again under the same idempotency key."""
        if await self._store.inbox.contains(work.queue, key):
            logger.info("consumer.duplicate_skipped queue=%s id=%s", work.queue, work.message.id)
            return
        pending = PendingPublishes()
        joined = current.set(pending)
        try:
            await self._call(work, admitted, None)
        finally:
            current.reset(joined)
        async with unit_of_work(self._store, self._publisher) as tx:
            if await self._store.inbox.record(tx.inner, work.queue, key):
                pending.move_to(tx)
                await self._resolve(work, tx, key)

    async def _attempt_without_inbox(self, work: Work, admitted: Admitted) -> None:
        if not admitted.handler.wants_transaction:
            await self._call(work, admitted, None)
            return
        async with unit_of_work(self._store, self._publisher) as tx:
            joined = current.set(tx)
            try:
                await self._call(work, admitted, tx)
            finally:
                current.reset(joined)

    async def _call(self, work: Work, admitted: Admitted, tx: Transaction | None) -> None:
        handler = admitted.handler
        delivery = _delivery_of(work) if handler.wants_delivery else None
        try:
            with within_delivery(is_again=work.is_again):
                running = handler.call(admitted.payload, delivery, tx)
                result = await within(running, handler.timeout_seconds, self._clock)
        except Ack:
            result = None
        if isinstance(result, Outcome) and not isinstance(result, Ack):
            raise result
        failpoint("consumer.after_handler")

    async def _resolve(self, work: Work, tx: Transaction, key: str) -> None:
        # only these can have a dead letter; asking for every message would cost each a query
        if work.failed or work.is_replay:
            await self._store.dead_letters.resolve(tx.inner, work.queue, key)
            failpoint("dead_letter.after_resolve")

    # --- fail --------------------------------------------------------------------------------------------------------

    def _decide(self, work: Work, handler: Handler, error: Exception) -> Decision:
        now = self._clock.now()
        deferred_at = work.first_deferred_at
        gate = state_of(handler.gates)
        decision = decide(
            error,
            work.failed + 1,
            attempts=handler.attempts,
            delays_seconds=handler.delays_seconds,
            deferred_seconds=0.0 if deferred_at is None else max(0.0, (now - deferred_at).total_seconds()),
            gate=gate,
        )
        if isinstance(decision, RunAgain) and not decision.counts and self._gate.is_draining:
            decision = SendCopy(_RENEWED_TIER_SECONDS, counts=False)  # whoever takes over need not wait for us
        if isinstance(decision, GiveUp) or decision.counts:
            work.failed += 1
            work.history.append(attempt_of(error, now, self._host))
        else:
            work.first_deferred_at = deferred_since(error, deferred_at, now, gate=gate)
        logger.warning(
            "consumer.failed queue=%s id=%s attempt=%d decision=%s error=%s: %s",
            work.queue,
            work.message.id,
            work.failed,
            type(decision).__name__,
            type(error).__name__,
            error,
        )
        return decision

    async def _send_copy(self, work: Work, decision: SendCopy) -> bool:
        """Put the copy into its delay queue; False if the broker's protocol cannot carry it."""
        copy = retry_copy(
            work.message,
            queue=work.queue,
            tier_seconds=decision.tier_seconds,
            failed=work.failed,
            history=history_text(work.history),
            now_text=self._clock.now().isoformat(),
            first_deferred_text=None if work.first_deferred_at is None else work.first_deferred_at.isoformat(),
        )
        failpoint("retry.before_copy")
        try:
            await self._copies.send(copy)
        except EncodeError as error:
            logger.error("retry.copy_refused queue=%s id=%s error=%s", work.queue, work.message.id, error)
            return False
        failpoint("retry.after_copy")
        return True

    async def _bury(self, work: Work, reason: str, error: Exception | None, detail: str) -> None:
        """Make it a dead letter, durable on return; waits out an outage of the store."""
        record = consumer_dead_letter(
            id=self._ids.message_id(),
            queue=work.queue,
            message=work.message,
            message_id=work.key or self._ids.message_id(),
            reason=reason,
            error=error,
            detail=detail,
            attempts=work.history,
            now=self._clock.now(),
        )
        failpoint("dead_letter.before_record")
        while True:
            await self._gate.wait()
            try:
                is_kept = await self._store.dead_letters.add(record)
                break
            except (Unavailable, LimitReached) as unavailable:
                self._gate.shut(unavailable)
        failpoint("dead_letter.after_record")
        if is_kept:
            logger.error(
                "dead_letter.recorded queue=%s id=%s reason=%s error=%s",
                work.queue,
                work.message.id,
                reason,
                record.error,
            )


def _instant_of(value: object) -> datetime | None:
    """Return a header's instant; None for what is none, also one without a zone."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return None if instant.tzinfo is None else instant.astimezone(UTC)


def _delivery_of(work: Work) -> Delivery:
    return Delivery(
        message=work.message,
        queue=work.queue,
        attempt=work.failed + 1,
        idempotency_key=derived_id(work.queue, work.key or work.message.id),
        is_replay=work.is_replay,
    )
