"""One delivery, as a straight list of steps: receive, admit, dedupe, run, commit, settle.

The ack comes last, after the commit of the effect, after the dead letter is durable, or after the retry copy is
confirmed. Killed at any line, the broker delivers again and the inbox drops what was done.

What never counts as an attempt: the store or the broker being away (the gate holds the delivery and the same attempt
runs again), a limit of ours being reached, and cancellation by a drain (the delivery is not settled; the broker takes
it back). A transaction that lost against another one (a deadlock, a serialisation failure), and one that met what looks
like an outage and is none, runs again a few times at once, uncounted; from then on it counts.
"""

from __future__ import annotations

import logging
import math

from spoolproof import limits
from spoolproof.backoff import RandomSource, full_jitter_seconds, spread_seconds
from spoolproof.caught import cancellations, error_line, is_failure
from spoolproof.clock import Clock
from spoolproof.codec import DecodeFailure, TypeRegistry
from spoolproof.consumer.attempt import Attempts
from spoolproof.consumer.copies import Copies, CopyRefused, retry_copy
from spoolproof.consumer.failure import Decision, GiveUp, RunAgain, SendCopy, decide, deferred_since
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.handler import Handler
from spoolproof.consumer.patience import Patience
from spoolproof.consumer.policy_gate import state_of
from spoolproof.consumer.room import Room
from spoolproof.consumer.router import Router
from spoolproof.consumer.work import Admitted, Refusal, Work, work_of
from spoolproof.dead_letters.keep import keep
from spoolproof.dead_letters.record import attempt_of, consumer_dead_letter, history_text
from spoolproof.errors import (
    LimitReached,
    OutboxFull,
    StoreBusy,
    TransactionTooLong,
    Unavailable,
    WindowFull,
)
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.outbox.publish import Publisher
from spoolproof.policies.report import kept_report
from spoolproof.ports.broker import Delivery as BrokerDelivery
from spoolproof.ports.store import Store

logger = logging.getLogger("spoolproof.consumer")

_RENEWED_TIER_SECONDS = limits.TIERS_SECONDS[0]
_HELD_TIER_SECONDS = 60  #: how long a copy stays away that the gate would only hold again


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
        patience: Patience,
        room: Room,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
        host: str,
    ) -> None:
        self._store = store
        self._router = router
        self._registry = registry
        self._attempts = Attempts(store, publisher, gate, clock=clock)
        self._copies = copies
        self._gate = gate
        self._patience = patience
        self._room = room
        self._clock = clock
        self._ids = ids
        self._random = random
        self._host = host

    async def handle(self, delivery: BrokerDelivery, arrived_at: float) -> None:
        """Bring one delivery to its end and settle it. Raises GateClosing when it should go back unstarted.

        arrived_at: monotonic seconds; it may have waited for its lane.
        """
        work = self._receive(delivery)
        admitted = self._admit(work)
        if isinstance(admitted, Refusal):
            await self._bury(work, admitted.reason, None, admitted.detail)
        else:
            await self._run_to_end(work, admitted, arrived_at)
        failpoint("consumer.before_ack")
        delivery.ack()
        failpoint("consumer.after_ack")

    async def renew(self, delivery: BrokerDelivery) -> None:
        """Put a copy, whose deliveries the broker counts anew, in the place of one that it would soon give up on."""
        if await self._send_copy(self._receive(delivery), SendCopy(_RENEWED_TIER_SECONDS, counts=False)) is None:
            delivery.ack()
        else:
            delivery.nack()

    # --- receive, admit ----------------------------------------------------------------------------------------------

    def _receive(self, delivery: BrokerDelivery) -> Work:
        failpoint("consumer.after_receive")
        return work_of(delivery)

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

    async def _run_to_end(self, work: Work, admitted: Admitted, arrived_at: float) -> None:
        """Run attempts until the message is done, or lives on as a copy or a dead letter."""
        held_until, leave_at = self._patience.hold_until(arrived_at), self._patience.leave_at(arrived_at)
        while True:
            is_late = self._clock.monotonic() >= leave_at
            if is_late or not await self._may_run(work, until=held_until):
                if await self._let_go(work):
                    return
                held_until = leave_at = math.inf
                continue
            asked = cancellations()
            try:
                await self._attempts.make(work, admitted)
            except BaseException as error:
                is_own = is_failure(error, asked)
                await self._attempts.keep_outlived(work, is_patient=is_own)
                if not is_own:
                    raise
                if not await self._is_held(work, error) and await self._fail(work, admitted.handler, error):
                    return
            else:
                self._passed(work)
                return

    async def _may_run(self, work: Work, *, until: float) -> bool:
        return await self._gate.wait(until=until) and await self._room.wait(work.queue, until=until)

    async def _is_held(self, work: Work, error: BaseException) -> bool:
        """Whether the same attempt is made again, uncounted, when what it met is over."""
        match error:
            case OutboxFull() as full if work.messages <= full.maximum:
                self._gate.passed()
                self._room.refused(work.queue, full, work.messages)
                return True
            case (Unavailable() | StoreBusy() | WindowFull()) as away:
                self._room.stays(work.queue)
                if await self._gate.confirms(away):
                    return True
                if work.has_run or not isinstance(away, Unavailable) or work.reruns < limits.RERUNS:
                    return await self._soon(work)
            case TransactionTooLong() if work.has_run:  # this process stood still while it recorded the success
                self._room.stays(work.queue)
                return True
            case _ if work.reruns < limits.RERUNS and self._store.is_conflict(error) and kept_report(error) is None:
                self._room.stays(work.queue)
                return await self._soon(work)
        self._passed(work)
        return False

    async def _soon(self, work: Work) -> bool:
        """Wait a moment, so that those who stood in each other's way do not meet again."""
        work.reruns += 1
        seconds = full_jitter_seconds(
            work.reruns, base_seconds=limits.RERUN_SECONDS, cap_seconds=limits.RERUN_SECONDS_MAX, source=self._random
        )
        await self._clock.sleep(seconds)
        return True

    def _passed(self, work: Work) -> None:
        self._gate.passed()
        self._room.passed(work.queue)

    async def _let_go(self, work: Work) -> bool:
        """Put a copy in the place of a delivery held for long, before the broker takes it away, and counts that. False
        if it stays: one that cannot be sent again, and one whose success is still to be recorded."""
        held = SendCopy(_HELD_TIER_SECONDS, counts=False)
        is_away = work.delivery.is_stale or await self._send_copy(work, held) is None
        if is_away and work.has_run:
            work.delivery.ack()  # the copy comes after the record, and is a duplicate then
        return is_away and not work.has_run

    # --- fail --------------------------------------------------------------------------------------------------------

    def _decide(self, work: Work, handler: Handler, error: BaseException) -> Decision:
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
            "consumer.failed queue=%s id=%s attempt=%d decision=%s error=%s",
            work.queue,
            work.message.id,
            work.failed,
            type(decision).__name__,
            error_line(error),
        )
        return decision

    async def _fail(self, work: Work, handler: Handler, error: BaseException) -> bool:
        """Do what follows a failed attempt; False if that is to run it again."""
        failpoint("consumer.after_failure")
        decision = self._decide(work, handler, error)
        if isinstance(decision, RunAgain):
            await self._clock.sleep(spread_seconds(decision.seconds, ratio=0.2, source=self._random))
            return False
        given_up = decision if isinstance(decision, GiveUp) else await self._send_copy(work, decision)
        if given_up is None:
            return True
        await self._bury(work, given_up.reason, error, given_up.detail)
        return True

    async def _send_copy(self, work: Work, decision: SendCopy) -> GiveUp | None:
        """Put the copy into its delay queue; returns what to do instead if no copy of it can ever be sent.

        A delivery that goes stale meanwhile comes again by itself, and needs no copy.
        """
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
            await self._copies.send(copy, is_moot=lambda: work.delivery.is_stale)
        except CopyRefused as refusal:
            logger.error("retry.copy_refused queue=%s id=%s error=%s", work.queue, work.message.id, refusal)
            return GiveUp(refusal.reason, f"no copy of it can be sent: {refusal}")
        failpoint("retry.after_copy")
        return None

    async def _bury(self, work: Work, reason: str, error: BaseException | None, detail: str) -> None:
        """Make it a dead letter, durable on return; waits out an outage of the store."""
        record = consumer_dead_letter(
            id=self._ids.message_id(),
            queue=work.queue,
            message=work.message,
            message_id=work.message.id or self._ids.message_id(),
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
                is_kept = await keep(self._store, record)
                break
            except (Unavailable, LimitReached) as unavailable:
                if not await self._gate.confirms(unavailable):
                    await self._clock.sleep(limits.RERUN_SECONDS_MAX)
        self._gate.passed()
        failpoint("dead_letter.after_record")
        if is_kept:
            logger.error(
                "dead_letter.recorded queue=%s id=%s reason=%s error=%s",
                work.queue,
                work.message.id,
                reason,
                record.error,
            )
