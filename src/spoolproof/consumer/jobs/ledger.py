"""The books of the items that were submitted: each state with the commit that makes it true.

Must never happen: an item that ran and whose row says that it did not, once its message is acked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from spoolproof.consumer.jobs.definition import Envelope
from spoolproof.consumer.jobs.events import ITEM_SECONDS, ITEMS
from spoolproof.consumer.jobs.problem import shown
from spoolproof.consumer.jobs.runs import Done, succeeded
from spoolproof.consumer.jobs.tools import Tools
from spoolproof.failpoints import failpoint
from spoolproof.message import REPLAY_OF, Message
from spoolproof.ports.batches import FINAL, BatchState, Item, ItemState
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.telemetry.metrics import METER, Spreads

OPEN: Sequence[ItemState] = tuple(state for state in ItemState if state not in FINAL)
_decoder = msgspec.json.Decoder(Envelope)


def envelope_of(message: Message) -> Envelope | None:
    """Return which item a message is of; None for what is no item, which anybody may send."""
    try:
        return _decoder.decode(message.body)
    except (msgspec.MsgspecError, RecursionError):
        return None


class ItemLedger:
    """Implements `consumer.ledger.Ledger` for one job. tools: those of the running service."""

    def __init__(self, job: str, tools: Callable[[], Tools]) -> None:
        self._name = job
        self._tools = tools
        self._seconds = Spreads(ITEM_SECONDS)

    async def is_wanted(self, message: Message) -> bool:
        """Tell whether it runs: not if its batch was cancelled before, or it has ended and nobody replays it. One whose
        report is gone does."""
        given = envelope_of(message)
        standing = None if given is None else await self._tools().batches.standing(given.batch, given.n)
        if standing is None or REPLAY_OF in message.headers:
            return True
        return standing == (BatchState.RUNNING, ItemState.PENDING)

    async def succeeded(self, tx: StoreTransaction, message: Message, result: object, failed: int) -> None:
        """Write the result."""
        given = envelope_of(message)
        done = result if isinstance(result, Done) else Done(result, 0.0)
        if given is not None:
            item = succeeded(_item(given), done.value, failed + 1, done.seconds, is_kept=True)
            await self._put(tx, given, item)
            failpoint("batch.after_item")
            self._seconds[self._name].observe(done.seconds)

    async def parked(self, tx: StoreTransaction, message: Message, review_id: str, question: str, failed: int) -> None:
        """Write that nobody knows what happened."""
        given = envelope_of(message)
        if given is not None:
            item = _item(given, ItemState.UNKNOWN, attempts=failed + 1, error=shown(question), review_id=review_id)
            await self._put(tx, given, item)

    async def failed(self, record: DeadLetterRecord) -> None:
        """Write why it failed."""
        await self.failed_before(record, OPEN)
        failpoint("batch.after_failed")

    async def failed_before(self, record: DeadLetterRecord, before: Sequence[ItemState]) -> bool:
        """Write why it failed, if it was in one of these states; tell whether it was."""
        given = envelope_of(record.message)
        if given is None:
            return False
        known: dict[str, Any] = {
            "attempts": len(record.attempts),
            "error_class": record.error_class,
            "error": shown(record.error),
        }
        async with self._tools().store.transaction() as tx:
            return await self._put(tx, given, _item(given, ItemState.FAILED, **known), before)

    async def put_off(self, message: Message, error: str, failed: int, seconds: float) -> None:
        """Note when its next attempt is."""
        given = envelope_of(message)
        if given is not None:
            tools = self._tools()
            next_at = tools.clock.now() + timedelta(seconds=seconds)
            waits: dict[str, Any] = {"reason": "waits for its next attempt", "next_at": next_at, "error": shown(error)}
            async with tools.store.transaction() as tx:
                item = _item(given, attempts=failed, **waits)
                await tools.batches.put(tx, given.batch, item, before=[ItemState.PENDING])

    def settled(self, message: Message) -> None:
        """Have somebody look whether that was the last one."""
        self._tools().stir()

    async def _put(self, tx: StoreTransaction, given: Envelope, item: Item, before: Sequence[ItemState] = OPEN) -> bool:
        is_written = await self._tools().batches.put(tx, given.batch, item, before=before)
        if is_written:
            METER.add(ITEMS, (self._name, item.state.value))
        return is_written


def _item(given: Envelope, state: ItemState = ItemState.PENDING, **known: object) -> Item:
    return Item(n=given.n, id=given.id, state=state, **known)  # type: ignore[arg-type]
