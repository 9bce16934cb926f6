"""One delivery, as a straight list of steps: receive, admit, dedupe, run, commit, settle.

The ack comes last, after the commit of the effect, after the dead letter is durable, or after the retry copy is
confirmed. Killed at any line, the broker delivers again and the inbox drops what was done.

What never counts as an attempt: the store or the broker being away (the gate holds the delivery and the same attempt
runs again), a limit of ours being reached, and cancellation by a drain (the delivery is not settled; the broker takes
it back). A transaction that lost against another one (a deadlock, a serialisation failure), and one that met what looks
like an outage and is none, runs again a few times at once, uncounted; from then on it counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from spoolproof import limits
from spoolproof.backoff import RandomSource, full_jitter_seconds
from spoolproof.caught import before, error_line, is_failure
from spoolproof.clock import Clock
from spoolproof.codec import DecodeFailure, TypeRegistry
from spoolproof.consumer.around import HandleAround
from spoolproof.consumer.attempt import Attempts
from spoolproof.consumer.claims import Claims
from spoolproof.consumer.copies import Copies
from spoolproof.consumer.dependencies import Dependencies
from spoolproof.consumer.ending import Endings
from spoolproof.consumer.events import BatchFailed
from spoolproof.consumer.foreign import Foreign
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.consumer.handler import Handler
from spoolproof.consumer.held import Keys
from spoolproof.consumer.patience import Patience
from spoolproof.consumer.replies import is_request
from spoolproof.consumer.room import Room
from spoolproof.consumer.router import Router
from spoolproof.consumer.suspects import Suspects
from spoolproof.consumer.threads import HandlerThreads
from spoolproof.consumer.turns import Turns
from spoolproof.consumer.work import Admitted, Begun, GoBack, Refusal, Work, work_of
from spoolproof.errors import OutboxFull, StoreBusy, TransactionTooLong, Unavailable, WindowFull
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.message import is_json
from spoolproof.outbox.publish import Publisher
from spoolproof.policies.judging.report import kept_report
from spoolproof.ports.broker import Incoming
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit


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
        threads: HandlerThreads,
        dependencies: Dependencies,
        around: HandleAround,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
        host: str,
        suspects: Suspects,
        keys: Keys,
        claims: Claims,
    ) -> None:
        self._store = store
        self._router = router
        self._registry = registry
        self._foreign = Foreign(router, registry)
        self._attempts = Attempts(store, publisher, gate, threads, dependencies, around, claims, keys, clock=clock)
        self._suspects = suspects
        self._claims = claims
        self._keys = keys
        self._endings = Endings(
            *(store, copies, gate, keys),
            clock=clock,
            ids=ids,
            random=random,
            host=host,
            former_of=router.former_of,
        )
        self._gate = gate
        self._patience = patience
        self._room = room
        self._turns = Turns(gate, clock=clock)
        self._clock = clock
        self._random = random

    async def handle(self, delivery: Incoming, arrived_at: float, begun: Begun | None = None) -> Work:
        """Bring one delivery to its end and settle it; returns what became of it. Raises GateClosing when it should go
        back unstarted.

        arrived_at: monotonic seconds; it may have waited for its lane. begun: of an ordered queue, where it may also
        return a work that is not settled, to be handled again in `again_seconds`, and raise GoBack.
        """
        failpoint("consumer.after_receive")
        work = self._work_of(delivery)
        if begun is not None:
            begun.recall(work)
        try:
            await self._run_to_end(work, arrived_at)
        finally:
            self._turns.end(work)
        if begun is not None and self._rests(work, begun, arrived_at):
            return work
        if work.admitted is not None and work.handler.ledger is not None:
            work.handler.ledger.settled(work.message)
        failpoint("consumer.before_ack")
        delivery.ack()
        failpoint("consumer.after_ack")
        return work

    async def handle_together(self, deliveries: Sequence[Incoming]) -> list[Work]:
        """Bring deliveries to their end in one transaction and settle them; returns those: perhaps none, and never one
        that has another way to go than success. Raises GateClosing."""
        works = [self._work_of(delivery) for delivery in deliveries]
        try:
            together = [work for work in works if not _runs_alone(work) and await self._is_admitted(work)]
            handlers = {work.handler.name: work.handler for work in together}
            for handler in handlers.values():
                batch = [work for work in together if work.handler is handler]
                if not await self._run_together(handler, batch):
                    together = [work for work in together if work.handler is not handler]
        finally:
            for work in works:
                self._turns.end(work)
        failpoint("consumer.before_batch_ack")
        for work in together:
            work.delivery.ack()
        return together

    async def _is_admitted(self, work: Work) -> bool:
        try:
            work.admitted = self._admit(work)
        except Exception:
            return False  # it goes its way by itself, and fails there
        return await self._may_run(work, until=self._clock.monotonic())

    async def _run_together(self, handler: Handler, works: Sequence[Work]) -> bool:
        if self._attempts.is_surrounded(handler):
            return False
        then = before()
        try:
            async with self._suspects.running(works[0]):  # a first delivery, as they all are
                await self._attempts.make_together(handler, works)
        except BaseException as error:
            is_own = is_failure(error, then)
            await self._attempts.keep_outlived(works[0], is_patient=is_own)
            if not is_own:
                raise
            emit(BatchFailed(handler=handler.name, messages=len(works), error=error_line(error)))
            return False
        for work in works:
            self._passed(work)
        return True

    def _rests(self, work: Work, begun: Begun, arrived_at: float) -> bool:
        """Whether an ordered message waits for its next attempt, for as long as its delivery may be held."""
        now = self._clock.monotonic()
        if begun.again_at <= now:
            return False
        until = now if work.delivery.is_stale else min(begun.again_at, self._patience.leave_at(arrived_at))
        work.again_seconds = max(0.0, until - now)
        return True

    def _work_of(self, delivery: Incoming) -> Work:
        message, refusal = self._foreign.read(delivery)
        work = work_of(delivery, self._clock.now(), message)
        work.refusal = refusal
        return work

    async def renew(self, delivery: Incoming) -> None:
        """Put a copy, whose deliveries the broker counts anew, in the place of one that it would soon give up on."""
        if await self._endings.send_away(self._work_of(delivery)):
            delivery.ack()
        else:
            delivery.nack()

    async def _run_to_end(self, work: Work, arrived_at: float) -> None:
        """Run attempts until the message is done, or lives on as a copy or a dead letter."""
        held_until, leave_at = self._patience.hold_until(arrived_at), self._patience.leave_at(arrived_at)
        if work.begun is not None and self._clock.monotonic() < min(work.begun.again_at, leave_at):
            return  # it came again before its time
        while True:
            is_late = self._clock.monotonic() >= leave_at
            if is_late or not await self._may_run(work, until=held_until):
                if await self._let_go(work):
                    return
                held_until = leave_at = math.inf
                continue
            then = before()
            try:
                async with self._suspects.running(work):
                    if work.begun is not None and await self._keys.keeps(work):
                        self._passed(work)
                        return
                    work.admitted = work.admitted or self._admit(work)
                    ledger = work.handler.ledger
                    if ledger is not None and not work.has_run and not await ledger.is_wanted(work.message):
                        work.outcome = "unwanted"
                        self._passed(work)
                        return
                    await self._attempts.make(work, work.admitted)
            except GateClosing:
                raise
            except BaseException as error:
                is_own = is_failure(error, then)
                await self._attempts.keep_outlived(work, is_patient=is_own)
                if not is_own:
                    raise
                if await self._is_held(work, error):
                    continue
                async with self._claims.asking(work):
                    is_over = await self._endings.fail(work, error)
                if is_over or work.begun is not None:
                    return
            else:
                self._passed(work)
                return

    async def _may_run(self, work: Work, *, until: float) -> bool:
        if work.reruns and self._clock.monotonic() >= until:
            return False
        return (
            await self._turns.wait(work, until=until)
            and await self._gate.wait(until=until)
            and await self._room.wait(work.queue, until=until)
        )

    def _admit(self, work: Work) -> Admitted:
        """Return the payload and who takes it. Raises Refusal."""
        message = work.message
        if work.delivery.fault is not None:
            raise Refusal("decode", work.delivery.fault)
        if work.refusal is not None:
            raise work.refusal
        if len(message.body) > limits.BODY_BYTES_MAX:
            raise Refusal("too_large", f"{len(message.body)} bytes, at most {limits.BODY_BYTES_MAX}")
        if message.expires_at is not None and message.expires_at <= self._clock.now():
            raise Refusal("expired", f"expired at {message.expires_at.isoformat()}")
        type_name = self._router.type_of(work.queue, message)
        handler = self._router.handler_for(work.queue, type_name)
        if handler is None:
            raise Refusal("unknown_type", f"no handler on queue {work.queue!r} takes type {type_name!r}")
        if message.datacontenttype is not None and not is_json(message.datacontenttype):
            raise Refusal("decode", f"content type {message.datacontenttype!r} is not JSON; foreign= can make it that")
        try:
            payload = self._registry.decode(message, type_name)
        except DecodeFailure as error:
            raise Refusal(error.reason, str(error)) from error
        failpoint("consumer.after_decode")
        return Admitted(handler, payload)

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
                is_innocent = work.has_run or work.running is None or not isinstance(away, Unavailable)
                if is_innocent or work.reruns < limits.RERUNS:
                    return await self._soon(work)
            case TransactionTooLong() if work.has_run:  # this process stood still while it recorded the success
                self._room.stays(work.queue)
                return True
            case _ if work.reruns < limits.RERUNS and self._store.is_conflict(error) and kept_report(error) is None:
                self._room.stays(work.queue)
                return await self._soon(work)
            case Refusal():
                self._room.stays(work.queue)
                return False
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
        if work.delivery.is_stale:
            work.outcome = "stale"
        elif work.begun is not None:
            if work.has_run:
                return False
            raise GoBack
        is_away = work.delivery.is_stale or await self._endings.send_away(work, self._patience.away_seconds)
        if is_away and work.has_run:
            work.delivery.ack()  # the copy comes after the record, and is a duplicate then
        return is_away and not work.has_run


def _runs_alone(work: Work) -> bool:
    """Whether a message was tried before, so that it must not fail others, has a dead letter to be resolved, or asks
    for an answer of its own."""
    return work.is_again or work.may_have_dead_letter or is_request(work.message)
