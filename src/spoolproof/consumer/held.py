"""Keys that are held: what comes later is kept behind them, and runs from there once the head was dealt with.

A lane keeps a message of a held key instead of running it. One process of a service runs what was kept, by a lease, key
by key and in order, each message as its handler would run it from the queue: with its attempts, its inbox row and, when
it is given up, its key held for it. The last one takes the row of the key along in its transaction.

Through the queue they would land behind younger ones of their key.
"""

from __future__ import annotations

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.events import KeyFull, KeyHeld, KeyReleased, MessageHeld
from spoolproof.consumer.router import Router
from spoolproof.consumer.work import Work
from spoolproof.dead_letters.record import consumer_dead_letter
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.held_keys import HeldKeys, Hold
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

HELD = "held"
_NOT_HELD_FOR = frozenset({"expired"})  #: its publisher said that it is worth nothing now


class Keys:
    """What ordered messages ask about their key."""

    def __init__(self, held_keys: HeldKeys, router: Router, *, clock: Clock, ids: Ids) -> None:
        self._held_keys = held_keys
        self._router = router
        self._clock = clock
        self._ids = ids
        self._folded = Folded(clock)

    async def keeps(self, work: Work) -> bool:
        """Whether a message is kept behind its key, committed on return, or waits for room there. A replay is never:
        it is the head, or was kept before."""
        queue, key = work.queue, work.message.key
        if key is None or work.is_replay or not self._router.holds_keys(queue):
            return False
        if not await self._held_keys.is_held(queue, key):
            return False
        hold = await self._held_keys.hold_behind(self._record(work), limits.HELD_MESSAGES_MAX)
        if hold is Hold.FULL:
            assert work.begun is not None  # its queue is ordered
            work.begun.note(work, self._clock.monotonic() + limits.HELD_FULL_SECONDS)
            self._folded.emit(KeyFull(queue=queue, key=key, messages=limits.HELD_MESSAGES_MAX))
        elif hold is Hold.HELD:
            failpoint("held.after_hold")
            work.outcome = "held"
            emit(MessageHeld(key=key, **work.told))
        return hold is not Hold.FREE

    async def hold(self, work: Work, reason: str) -> None:
        """Hold the key of a message that became a dead letter, if its queue asks for that."""
        key, name = work.message.key, work.key
        if key is None or name is None or reason in _NOT_HELD_FOR or not self._router.holds_keys(work.queue):
            return
        failpoint("held.before_begin")
        await self._held_keys.begin(work.queue, key, name)
        failpoint("held.after_begin")
        emit(KeyHeld(key=key, **work.told))

    async def release(self, tx: StoreTransaction, work: Work) -> None:
        """Let the key go in the transaction of a replay that succeeded, if nothing waits behind it any more."""
        key = work.message.key
        if key is None or not self._router.holds_keys(work.queue):
            return
        if await self._held_keys.release(tx, work.queue, key):
            emit(KeyReleased(queue=work.queue, key=key))

    def _record(self, work: Work) -> DeadLetterRecord:
        return consumer_dead_letter(
            id=self._ids.message_id(),
            queue=work.queue,
            message=work.message,
            message_id=work.message.id or self._ids.message_id(),
            reason=HELD,
            error=None,
            detail=f"an earlier message of key {work.message.key!r} was given up",
            attempts=(),
            now=self._clock.now(),
        )
