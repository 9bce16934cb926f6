"""One attempt, as one list of steps whatever the handler takes: run, note in the inbox, publish, resolve, commit.

With a `Transaction` the handler runs between the first and the last of them, so that its effects, its inbox row and its
publishes commit together. Without one it runs before: no transaction stays open while it calls the world. What it
published and its inbox row commit after it; a crash before that runs it again under the same idempotency key.

Every way through ends with the dead letter of this message resolved, if there is one: a message that was handled, by
this copy of it or by another, waits for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from spoolproof import limits
from spoolproof.caught import tame
from spoolproof.clock import Clock
from spoolproof.consumer.around import HandleAround
from spoolproof.consumer.claims import Claims
from spoolproof.consumer.dependencies import Dependencies
from spoolproof.consumer.events import HANDLER_SECONDS, DuplicateSkipped, PublishesLost
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.handler import Dedupe, Handler
from spoolproof.consumer.held import Keys
from spoolproof.consumer.replayed import resolve
from spoolproof.consumer.replies import answer_of, is_request
from spoolproof.consumer.span import around_attempt
from spoolproof.consumer.threads import HandlerThreads, Place
from spoolproof.consumer.work import Admitted, Work
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.message import Message, Outgoing, earlier_key
from spoolproof.outbox.publish import Publisher, Running, handling
from spoolproof.outbox.receipt import Receipt, receipt_of
from spoolproof.outbox.transaction import PendingPublishes, Transaction, unit_of_work
from spoolproof.outcome import Ack, Outcome
from spoolproof.policies.call import within_delivery
from spoolproof.policies.running.timeout import within
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import Spreads


class Attempts:
    """Makes the attempts of all messages."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        gate: Gate,
        threads: HandlerThreads,
        dependencies: Dependencies,
        around: HandleAround,
        claims: Claims,
        keys: Keys,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._gate = gate
        self._threads = threads
        self._dependencies = dependencies
        self._around = around
        self._claims = claims
        self._keys = keys
        self._seconds = Spreads(HANDLER_SECONDS)
        self._clock = clock

    async def make(self, work: Work, admitted: Admitted) -> None:
        """Run the handler, and record that it succeeded. Raises what the handler raises, an Outcome included.

        When only the recording failed, `work.has_run` says so, and a further call does no more than record.
        """
        if not work.has_run:
            work.running = None
            if admitted.handler.is_sync:
                async with self._threads.place(admitted.handler.timeout_seconds) as place:
                    await self._make(work, admitted, place)
                return
        await self._make(work, admitted, None)

    async def _make(self, work: Work, admitted: Admitted, place: Place | None) -> None:
        async with self._claims.held(work):
            await self._make_claimed(work, admitted, place)

    async def _make_claimed(self, work: Work, admitted: Admitted, place: Place | None) -> None:
        takes_transaction = admitted.handler.wants_transaction
        if not takes_transaction:
            await self._run_outside(work, admitted, place)
            if not (admitted.is_deduplicated(work) or (work.key and work.may_have_dead_letter)):
                return
        async with unit_of_work(self._store, self._publisher) as tx:
            if await self._is_new(work, admitted, tx):
                if takes_transaction:
                    await self._call(work, admitted, tx, place)
                else:
                    work.pending.move_to(tx)
                if admitted.handler.ledger is not None:
                    await admitted.handler.ledger.succeeded(tx.inner, work.message, work.result, work.failed)
            await self._resolve(work, tx)
            failpoint("consumer.before_commit")
        work.is_recorded = True
        failpoint("consumer.after_commit")

    def is_surrounded(self, handler: Handler) -> bool:
        """Whether something goes around each of its attempts, so that many cannot be one."""
        return bool(self._around or handler.dependencies)

    async def make_together(self, handler: Handler, works: Sequence[Work]) -> None:
        """Run a batch handler for many first deliveries, and record that it succeeded: all of it or nothing. Raises
        what the handler raises."""
        if handler.dedupe is Dedupe.NONE:
            await self._call_together(handler, works, None)
            return
        async with unit_of_work(self._store, self._publisher) as tx:
            new = [work for work in works if await self._is_new(work, work.admitted_as(handler), tx)]
            if new:
                await self._call_together(handler, new, tx)
            failpoint("consumer.before_batch_commit")

    async def _call_together(self, handler: Handler, works: Sequence[Work], tx: Transaction | None) -> None:
        running = works[0].running = Running(None, tx)  # it speaks for all, should they fail
        token = handling.set(running)
        began = self._clock.monotonic()
        try:
            payloads = [work.admitted_as(handler).payload for work in works]
            result = await within(handler.call(payloads, None, tx), handler.timeout_seconds, self._clock)
        except Ack:
            result = None
        finally:
            self._seconds[works[0].queue].pending.append(self._clock.monotonic() - began)
            handling.reset(token)
            running.end()
        if isinstance(result, Outcome) and not isinstance(result, Ack):
            raise result

    async def keep_outlived(self, work: Work, *, is_patient: bool) -> None:
        """Store what a failed attempt leaves behind that was never its own: publishes of tasks that outlive it.

        is_patient: wait out an outage, unless the service drains.
        """
        if work.has_run or work.running is None:
            return
        outlived = work.running.outlived()
        while outlived:
            try:
                await self._publisher.store(outlived)
                return
            except (Unavailable, LimitReached) as error:
                if not is_patient or self._gate.is_draining:
                    ids = ", ".join(outgoing.message.id for outgoing in outlived)
                    emit(PublishesLost(queue=work.queue, ids=ids, error=str(error)))
                    return
            await self._clock.sleep(limits.STORE_PING_MAX_SECONDS)

    async def _run_outside(self, work: Work, admitted: Admitted, place: Place | None) -> None:
        if work.has_run:
            return
        if not admitted.is_deduplicated(work):
            await self._call(work, admitted, None, place)
        elif not await self._is_done(work, admitted):
            work.pending = PendingPublishes()
            await self._call(work, admitted, work.pending, place)
        work.has_run = True

    async def _is_done(self, work: Work, admitted: Admitted) -> bool:
        for consumer in work.consumers:
            if await self._store.inbox.contains(consumer, work.key or "", earlier_key(work.message)):
                return True
        return False

    async def _is_new(self, work: Work, admitted: Admitted, tx: Transaction) -> bool:
        """Note it in the inbox, first in the transaction; False if the message was handled before."""
        if not admitted.is_deduplicated(work):
            return True
        is_new = True
        for consumer in work.consumers:  # the release before looks under its own name only
            is_new &= await self._store.inbox.record(tx.inner, consumer, work.key or "", earlier_key(work.message))
        if not is_new:
            work.outcome = "duplicate"
            emit(DuplicateSkipped(queue=work.queue, message_id=work.message.id))
        failpoint("consumer.after_inbox")
        return is_new

    async def _call(
        self, work: Work, admitted: Admitted, unit: Transaction | PendingPublishes | None, place: Place | None
    ) -> None:
        """Run the handler; what it publishes joins the unit of work."""
        handler = admitted.handler
        delivery = work.for_handler() if handler.wants_delivery else None
        untouchable: BaseException | None = None
        work.running = Running(work.message, unit)
        before = handling.set(work.running)
        began = self._clock.monotonic()
        try:
            with within_delivery(is_again=work.is_again), around_attempt(work):
                tx = unit if isinstance(unit, Transaction) else None
                if self._around or handler.dependencies:
                    running = self._surrounded(work, admitted, tx, place)
                elif place is None:
                    running = handler.call(admitted.payload, delivery, tx)
                else:
                    running = place.run(work.running, handler, admitted.payload, delivery, tx, {})
                result = await within(running, handler.timeout_seconds, self._clock)
        except Ack:
            result = None
        except BaseException as error:
            untouchable = tame(error)
            if untouchable is error:
                raise
        finally:
            self._seconds[work.queue].pending.append(self._clock.monotonic() - began)  # the worker has it counted
            handling.reset(before)
            work.running.end()
        if untouchable is not None:
            raise untouchable
        if isinstance(result, Outcome) and not isinstance(result, Ack):
            raise result
        work.result = result
        if is_request(work.message):
            await self._answer(work.message, None if isinstance(result, Ack) else result, unit)
        failpoint("consumer.after_handler")

    async def _answer(self, request: Message, result: object, unit: Transaction | PendingPublishes | None) -> None:
        async def alone(outgoing: Outgoing) -> Receipt:
            return receipt_of(outgoing, await self._publisher.store([outgoing]))

        keep = alone if unit is None else unit.collect
        await self._publisher.keep(answer_of(request, result, self._publisher), keep)

    async def _surrounded(self, work: Work, admitted: Admitted, tx: Transaction | None, place: Place | None) -> object:
        """Run the handler with what it depends on, inside what the application puts around every attempt."""
        handler, delivery, running = admitted.handler, work.for_handler(), work.running
        assert running is not None  # _call has made it

        async def call() -> object:
            async with AsyncExitStack() as closing:
                others = await self._dependencies.made_for(handler, delivery, tx, closing)
                if place is None:
                    return await handler.call(admitted.payload, delivery, tx, others)
                return await place.run(running, handler, admitted.payload, delivery, tx, others)

        return await self._around.through(delivery, call)

    async def _resolve(self, work: Work, tx: Transaction) -> None:
        if work.key is not None and work.may_have_dead_letter:
            await resolve(self._store.dead_letters, tx.inner, work)
            if work.begun is not None and work.is_replay:
                await self._keys.release(tx.inner, work)
            failpoint("dead_letter.after_resolve")
