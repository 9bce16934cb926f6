"""The loop that runs what was kept behind a key once its head was dealt with, and tells which keys are held.

It works under a lease of the service. Two that overlap, one of them frozen past its lease, disturb no order: each goes
on from a message only when that is done, and the inbox lets one of them do it.

A queue whose handler holds no keys any more may have some left of a release that did. What waits there runs, too, for
nobody else would ever run it. Such queues are looked for once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.events import KeyReleased
from spoolproof.consumer.execution import Execution
from spoolproof.consumer.gate import GateClosing
from spoolproof.consumer.work import Begun, GoBack
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.lifecycle.membership import Holding
from spoolproof.message import REPLAY_OF, Message
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.held_keys import HeldKey, HeldKeys
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit

LEAD = "run"
_SHOWN = 5
_LEFT_SECONDS = 60.0


class HeldIncoming:
    """A message from the table, as the delivery its handler would get. Its dead letter alone says what became of it."""

    fault: str | None = None
    dead_reason: str | None = None
    routing_key = ""
    delivery_count = 1  #: a process may have ended over it, so its runs are recorded
    is_stale = False

    def __init__(self, record: DeadLetterRecord) -> None:
        headers = {**record.message.headers, REPLAY_OF: record.id}
        self.message: Message = msgspec.structs.replace(record.message, headers=headers)
        self.queue = record.consumer

    def ack(self) -> bool:
        """Nothing is left to say."""
        return True

    nack = reject = ack


class HeldRuns(Loop):
    """Runs held messages of the queues that hold keys, and of those that did."""

    name = "consumer.held"
    phase = Phase.HANDLE
    stall_seconds: float | None = None  #: its turns last as long as the user's handlers

    def __init__(
        self,
        queues: Sequence[str],
        held_keys: HeldKeys,
        store: Store,
        execution: Execution,
        lead: Holding,
        clock: Clock,
        *,
        others: Sequence[str] = (),
    ) -> None:
        """queues: those that hold keys. others: those that may have held some."""
        self._holding = tuple(queues)
        self._others = others
        self._queues = self._holding
        self._look_for_left_at = -_LEFT_SECONDS
        self._drains = asyncio.Event()
        self._held_keys = held_keys
        self._store = store
        self._execution = execution
        self._lead = lead
        self._clock = clock
        self._begun: dict[str, Begun] = {}  #: by id of the dead letter; at most one for each key
        self._looked_at = -limits.HEALTH_SAMPLE_SECONDS
        self._held: list[HeldKey] = []

    async def run_once(self) -> int:
        """Run the next message of every released key, or wait a second. Raises StoreUnavailable."""
        await self._look_for_left()
        if not self._queues:
            self._held = []
            await self._rest(_LEFT_SECONDS)
            return 0
        await self._look_when_due()
        ran = 0
        if self._lead.fence_for(LEAD) is not None:
            for queue in self._queues:
                for key in await self._held_keys.released(queue, limits.HELD_KEYS_AT_ONCE):
                    ran += await self._run_next(queue, key)
        else:
            self._begun.clear()
        if not ran:
            await self._rest(limits.HELD_POLL_SECONDS)
        return ran

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not into a drain, which waits for the end of this turn."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._drains.wait()

    async def _run_next(self, queue: str, key: str) -> bool:
        """Run one message of a key; False if there is none, or it waits for its next attempt."""
        record = await self._held_keys.next(queue, key)
        if record is None:
            async with self._store.transaction() as tx:
                has_gone = await self._held_keys.release(tx, queue, key)
            if has_gone:
                emit(KeyReleased(queue=queue, key=key))
            return False
        begun = self._begun.get(record.id) or Begun()
        now = self._clock.monotonic()
        if self._drains.is_set() or begun.again_at > now or self._lead.fence_for(LEAD) is None:
            return False
        failpoint("held.before_run")
        try:
            work = await self._execution.handle(HeldIncoming(record), now, begun)
        except (GateClosing, GoBack):
            return False
        failpoint("held.after_run")
        if work.again_seconds is None:
            self._begun.pop(record.id, None)
            return True
        self._begun[record.id] = begun
        return False

    def begin_drain(self) -> None:
        """Begin no further message; the running one goes on."""
        self._drains.set()

    async def _look_for_left(self) -> None:
        now = self._clock.monotonic()
        if self._others and now - self._look_for_left_at >= _LEFT_SECONDS:
            left = [queue for queue in self._others if await self._held_keys.all(queue, 1)]
            self._queues = (*self._holding, *left)
            self._look_for_left_at = now

    async def _look_when_due(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked_at >= limits.HEALTH_SAMPLE_SECONDS:
            self._looked_at = now
            self._held = [one for queue in self._queues for one in await self._held_keys.all(queue, _SHOWN)]

    def issues(self) -> list[str]:
        """Return a sentence for the keys that are held longest."""
        return [
            f"queue {one.consumer}: key {one.key!r} held since {one.since.isoformat(timespec='seconds')} for dead "
            f"letter {one.head}, {one.messages} messages wait; replay it or discard it (`spoolproof dlq`)"
            for one in self._held[:_SHOWN]
        ]
