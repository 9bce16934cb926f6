"""A message that its handler leaves to a person: its inbox row and a review item that carries it are one commit.

The ack follows. From then on a redelivery is a duplicate, and what becomes of the message is decided on the item
(`review/messages.py`).
"""

from __future__ import annotations

from spoolproof import limits
from spoolproof.caught import storable_text
from spoolproof.clock import Clock
from spoolproof.consumer.events import MessageParked
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.held import Keys
from spoolproof.consumer.replayed import resolve
from spoolproof.consumer.work import Work
from spoolproof.dead_letters.record import shortened
from spoolproof.errors import Conflict, LimitReached, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.message import earlier_key
from spoolproof.outcome import Park
from spoolproof.ports.reviews import ReviewItem, Reviews
from spoolproof.ports.store import Store
from spoolproof.review.chain import hash_of_message
from spoolproof.review.item import new_item
from spoolproof.review.messages import ACTIONS, MESSAGE, packed
from spoolproof.review.opening import Opened, open_item
from spoolproof.telemetry.events import emit


class Parking:
    """Parks messages of one process."""

    def __init__(self, store: Store, gate: Gate, keys: Keys, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._gate = gate
        self._keys = keys
        self._clock = clock
        self._ids = ids

    async def park(self, work: Work, park: Park) -> None:
        """Open the item, durable on return; waits out an outage of the store."""
        failpoint("review.before_park")
        while True:
            await self._gate.wait()
            try:
                opened = await self._open(work, park)
                break
            except (Unavailable, LimitReached, Conflict) as error:
                if isinstance(error, Conflict) or not await self._gate.confirms(error):
                    await self._clock.sleep(limits.RERUN_SECONDS_MAX)
        self._gate.passed()
        failpoint("review.after_park")
        work.outcome = "duplicate" if opened is None else "parked"
        if opened is not None:
            emit(MessageParked(id=opened.id, question=storable_text(park.question), **work.told))

    async def _open(self, work: Work, park: Park) -> Opened | None:
        """Return the item; None if the message was handled meanwhile."""
        data = packed(work.message)
        async with self._store.transaction() as tx:
            if work.key is not None:
                is_deduplicated = work.admitted is not None and work.admitted.is_deduplicated(work)
                earlier = earlier_key(work.message)
                for consumer in work.consumers if is_deduplicated else ():
                    if not await self._store.inbox.record(tx, consumer, work.key, earlier):
                        return None
                if work.may_have_dead_letter:
                    await resolve(self._store.dead_letters, tx, work)
                if work.begun is not None and work.is_replay:
                    await self._keys.release(tx, work)
            opened = await open_item(self._store.port(Reviews), tx, self._item(work, park, data), data)
            if work.admitted is not None and work.handler.ledger is not None:
                await work.handler.ledger.parked(tx, work.message, opened.id, park.question, work.failed)
            return opened

    def _item(self, work: Work, park: Park, data: bytes) -> ReviewItem:
        message = work.message
        told = {"id": message.id, "type": message.type, "source": message.source, "key": message.key}
        return new_item(
            id=self._ids.message_id(),
            service=self._store.services.own_name or "-",
            kind=MESSAGE,
            subject=f"{shortened(work.queue)[:150]}/{work.key or work.content_key}",
            question=storable_text(park.question)[: limits.REVIEW_TEXT_MAX],
            actions=ACTIONS,
            evidence={
                "queue": work.queue,
                **({"formerly": list(work.handler.formerly)} if work.handler.formerly else {}),
                "handler": work.handler.name,
                "failed_attempts": work.failed,
                **{name: None if value is None else shortened(storable_text(value)) for name, value in told.items()},
            },
            now=self._clock.now(),
            message_hash=hash_of_message(data),
        )
