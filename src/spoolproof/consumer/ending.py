"""What follows an attempt that did not succeed: it runs again, lives on as a copy, or becomes a dead letter.

Each failure is one line that says what failed, of which message, and what happens next. The first and the last failure
of a message also log their traceback; those in between would repeat it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import assert_never

import msgspec

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.caught import error_line, error_text
from spoolproof.clock import Clock
from spoolproof.consumer.copies import Copies, CopyRefused, retry_copy
from spoolproof.consumer.events import (
    RETRY_COPIES,
    AttemptDeferred,
    AttemptFailed,
    CopyImpossible,
    DeadLetterRecorded,
    HandlerGaveUp,
    NotTaken,
)
from spoolproof.consumer.failure import (
    PARK,
    Decision,
    GiveUp,
    RunAgain,
    SendCopy,
    decide,
    decide_refusal,
    deferred_since,
    in_place,
    is_wait_for_release,
)
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.held import Keys
from spoolproof.consumer.ledger import Ledger
from spoolproof.consumer.parking import Parking
from spoolproof.consumer.policy_gate import state_of
from spoolproof.consumer.replayed import recorded_otherwise
from spoolproof.consumer.work import Refusal, Work
from spoolproof.dead_letters.keep import keep
from spoolproof.dead_letters.record import attempt_of, consumer_dead_letter, history_text
from spoolproof.destination import to_queue
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids, is_uuid
from spoolproof.message import REPLAY_OF, Outgoing
from spoolproof.outcome import Outcome, Park
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.schedule import Schedule
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER

_AGAIN_TIER_SECONDS = limits.TIERS_SECONDS[0]


class Endings:
    """Ends the attempts of one process that failed."""

    def __init__(
        self,
        store: Store,
        copies: Copies,
        gate: Gate,
        keys: Keys,
        *,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
        host: str,
        former_of: Callable[[str], Sequence[str]],
    ) -> None:
        """former_of: the queues that the handlers of one had before."""
        self._store = store
        self._copies = copies
        self._gate = gate
        self._keys = keys
        self._parking = Parking(store, gate, keys, clock=clock, ids=ids)
        self._clock = clock
        self._ids = ids
        self._random = random
        self._host = host
        self._former_of = former_of

    async def fail(self, work: Work, error: BaseException) -> bool:
        """Do what follows a failed attempt; False if that is to run it again."""
        failpoint("consumer.after_failure")
        is_refused = isinstance(error, Refusal)
        if not is_refused and work.admitted is None:
            raise error  # no step before the handler's fails but for an outage: that is a bug, and the worker's to tell
        if isinstance(error, Park):
            await self._parking.park(work, error)
            return True
        decision = self._refuse(work, error) if isinstance(error, Refusal) else self._decide(work, error)
        if work.begun is not None:
            decision = in_place(decision)
        ledger = None if work.admitted is None else work.handler.ledger
        if ledger is not None and isinstance(decision, GiveUp) and decision.reason == PARK:
            await self._parking.park(work, Park(decision.detail or error_line(error)))
            return True
        match decision:
            case RunAgain():
                seconds = spread_seconds(decision.seconds, ratio=0.2, source=self._random)
                self._tell(work, error, decision, f"runs again in {seconds:.1f} s")
                if work.begun is not None:  # its lane waits, and takes no other's place meanwhile
                    work.begun.note(work, self._clock.monotonic() + seconds)
                    return False
                await self._clock.sleep(seconds)
                return False
            case SendCopy():
                self._tell(
                    work, error, decision, f"runs again in {decision.later_seconds or decision.tier_seconds:g} s"
                )
                if ledger is not None:
                    await self._note(ledger, work, error, decision)
                given_up = await self.send_copy(work, decision)
                if given_up is None:
                    return True
            case GiveUp():
                given_up = decision
            case _:
                assert_never(decision)
        await self._bury(work, given_up, None if is_refused else error)
        return True

    async def _note(self, ledger: Ledger, work: Work, error: BaseException, decision: SendCopy) -> None:
        """Have the ledger say when it runs again; for people, so an outage may keep it from that."""
        with suppress(Unavailable, LimitReached):
            seconds = decision.later_seconds or decision.tier_seconds
            await ledger.put_off(work.message, error_line(error), work.failed, seconds)

    async def send_away(self, work: Work, tier_seconds: int = _AGAIN_TIER_SECONDS) -> bool:
        """Put a copy in the place of a delivery that nobody has run; False if no copy of it can be sent."""
        return await self.send_copy(work, SendCopy(tier_seconds, counts=False)) is None

    def _refuse(self, work: Work, refusal: Refusal) -> Decision:
        now = self._clock.now()
        since = work.first_unknown_at or now
        if is_wait_for_release(refusal.reason):
            work.first_unknown_at = since
        return decide_refusal(refusal.reason, refusal.detail, waited_seconds=(now - since).total_seconds())

    def _decide(self, work: Work, error: BaseException) -> Decision:
        handler = work.handler
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
            is_ordered=handler.is_ordered,
        )
        if isinstance(decision, RunAgain) and not decision.counts and self._gate.is_draining:
            decision = SendCopy(_AGAIN_TIER_SECONDS, counts=False)  # whoever takes over need not wait for us
        if isinstance(decision, GiveUp) or decision.counts:
            work.failed += 1
            work.history.append(attempt_of(error, now, self._host))
        else:
            work.first_deferred_at = deferred_since(error, deferred_at, now, gate=gate)
        return decision

    def _tell(self, work: Work, error: BaseException, decision: RunAgain | SendCopy, next: str) -> None:
        if isinstance(error, Refusal):
            emit(NotTaken(error=error.detail, next=next, **work.told))
            return
        is_said = isinstance(error, Outcome)  # by the handler itself, so there is nothing to trace
        how = "asked to wait" if is_said else "failed" if decision.counts else "met an outage"
        text = error_text(error) if is_said else error_line(error)
        handler = work.handler
        if not decision.counts:
            emit(AttemptDeferred(handler=handler.name, how=how, error=text, next=next, **work.told))
            return
        failed = AttemptFailed(
            handler=handler.name,
            how=how,
            error=text,
            attempt=work.failed,
            attempts=handler.attempts,
            next=next,
            **work.told,
        )
        emit(failed, error=error if work.failed == 1 and not is_said else None)

    async def send_copy(self, work: Work, decision: SendCopy) -> GiveUp | None:
        """Put the copy into its delay queue; returns what to do instead if no copy of it can ever be sent.

        A delivery that goes stale meanwhile comes again by itself, and needs no copy.
        """
        copy = retry_copy(
            work.message,
            queue=work.queue,
            tier_seconds=decision.tier_seconds,
            failed=work.failed,
            history=history_text(work.history),
            now=self._clock.now(),
            first_deferred_at=work.first_deferred_at,
            first_unknown_at=work.first_unknown_at,
        )
        failpoint("retry.before_copy")
        try:
            if not (decision.later_seconds and await self._is_scheduled(work, copy, decision.later_seconds)):
                await self._copies.send(copy, is_moot=lambda: work.delivery.is_stale)
        except CopyRefused as refusal:
            emit(CopyImpossible(error=str(refusal), **work.told))
            return GiveUp(refusal.reason, f"no copy of it can be sent: {refusal}")
        failpoint("retry.after_copy")
        work.outcome = "retried" if decision.counts else "deferred"
        METER.add(RETRY_COPIES, (work.queue, str(decision.tier_seconds)))
        return None

    async def _is_scheduled(self, work: Work, copy: Outgoing, seconds: float) -> bool:
        """Keep a copy in the schedule, durable on return. False: it cannot be now; the longest delay queue brings the
        message back early, and its handler says again what it said."""
        due = timedelta(seconds=min(seconds, limits.SCHEDULE_DAYS_MAX * 86400))
        later = msgspec.structs.replace(copy, destination=to_queue(work.queue), routing_key=None, due=due)
        try:
            await self._store.port(Schedule).add([later], None)
        except (Unavailable, LimitReached):
            return False
        return True

    async def _bury(self, work: Work, given_up: GiveUp, error: BaseException | None) -> None:
        """Make it a dead letter, durable on return; waits out an outage of the store."""
        record = consumer_dead_letter(
            id=self._ids.message_id(),
            queue=work.queue,
            message=work.message,
            message_id=work.message.id or self._ids.message_id(),
            reason=given_up.reason,
            error=error,
            detail=given_up.detail,
            attempts=work.history,
            now=self._clock.now(),
        )
        failpoint("dead_letter.before_record")
        while True:
            await self._gate.wait()
            try:
                record = await self._as_before(work, record)
                is_kept = await keep(self._store.dead_letters, self._store.transaction, record)
                if is_kept and work.begun is not None:
                    await self._keys.hold(work, given_up.reason)  # killed before it, the message comes again
                if is_kept and work.admitted is not None and work.handler.ledger is not None:
                    await work.handler.ledger.failed(record)
                break
            except (Unavailable, LimitReached) as unavailable:
                if not await self._gate.confirms(unavailable):
                    await self._clock.sleep(limits.RERUN_SECONDS_MAX)
        self._gate.passed()
        failpoint("dead_letter.after_record")
        work.outcome = "dead_letter" if is_kept else "duplicate"
        if is_kept:
            self._tell_dead_letter(work, given_up, error, record.error)

    async def _as_before(self, work: Work, record: DeadLetterRecord) -> DeadLetterRecord:
        """Return the record as the one that was replayed, if that is of a queue its handler had before, or has the
        message under another key: it is open again."""
        known = await recorded_otherwise(self._store.dead_letters, work) if work.is_replay else None
        if known is not None:
            return replace(record, message=known.message, consumer=known.consumer, destination=known.destination)
        former, replayed = self._former_of(work.queue), str(work.message.headers.get(REPLAY_OF, ""))
        if not former or not is_uuid(replayed):
            return record
        before = await self._store.dead_letters.get(replayed)
        consumer = work.queue if before is None else before.record.consumer
        return replace(record, consumer=consumer, destination=to_queue(consumer)) if consumer in former else record

    def _tell_dead_letter(self, work: Work, given_up: GiveUp, error: BaseException | None, text: str) -> None:
        if error is None:
            emit(DeadLetterRecorded(reason=given_up.reason, error=text, **work.told))
            return
        is_said = isinstance(error, Outcome)
        told = HandlerGaveUp(
            handler=work.handler.name,
            how="refused the message" if is_said else "failed",
            error=error_text(error) if is_said else error_line(error),
            attempt=work.failed,
            attempts=work.handler.attempts,
            reason=given_up.reason,
            **work.told,
        )
        emit(told, error=None if is_said else error)
