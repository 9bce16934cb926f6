"""Moves what the broker itself gave up on into the dead-letter table, so that one list shows every unhappy end.

That is what it gave up in each queue (delivery limit passed, rejected), and retry copies whose queue is gone. Upsert
first, ack after: a crash between the two repeats the upsert.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.consumer.events import BridgeFailed
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.consumer.waiting import make_room
from spoolproof.dead_letters.keep import keep
from spoolproof.dead_letters.record import consumer_dead_letter, history_of
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.ports.broker import Broker, GivenUp, Incoming, Subscription
from spoolproof.ports.dead_letters import DeadLetters
from spoolproof.ports.transaction import OpenTransaction
from spoolproof.telemetry.events import emit

_PREFETCH = 10
_IDLE_SECONDS = 5.0


class Bridge(Loop):
    """The loop that empties the broker's own dead-letter queues."""

    name = "dead_letters.bridge"
    phase = Phase.TAKE_IN

    def __init__(
        self,
        queues: Sequence[str],
        dead_letters: DeadLetters,
        transaction: OpenTransaction,
        broker: Broker,
        gate: Gate,
        *,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._sources = [GivenUp(queue) for queue in (*queues, None)]
        self._dead_letters = dead_letters
        self._transaction = transaction
        self._broker = broker
        self._gate = gate
        self._clock = clock
        self._ids = ids
        self._subscriptions: list[Subscription] = []
        self._held: Incoming | None = None
        self._waiting: asyncio.Queue[Incoming] = asyncio.Queue(maxsize=_PREFETCH * len(self._sources))

    async def start(self) -> None:
        """Consume every source, as soon as the broker is there."""
        for source in self._sources:
            self._subscriptions.append(await self._broker.subscribe(source, _PREFETCH, self._on_delivery))

    async def run_once(self) -> int:
        """Record one message, or wait a few seconds for one, or for the store."""
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                self._held = self._held or await self._waiting.get()
        except TimeoutError:
            return 0
        try:
            # not longer: a turn that lasts for an outage would look like a loop that hangs
            if not await self._gate.wait(until=self._clock.monotonic() + _IDLE_SECONDS):
                return 0
            await self._record(self._held)
            self._gate.passed()
        except GateClosing:
            self._held.nack()
        except (Unavailable, LimitReached) as error:
            if not await self._gate.confirms(error):
                await self._clock.sleep(limits.RERUN_SECONDS_MAX)
            return 0  # and keep it: to send it back would bring it here again at once
        except Exception as error:  # nothing in the product expects this; those behind it must not wait for it
            emit(BridgeFailed(queue=self._held.queue, error=error_line(error)))
            self._held.nack()
            await self._clock.sleep(limits.RERUN_SECONDS_MAX)
        self._held = None
        return 1

    async def drain(self) -> None:
        """Take nothing new and hand back what waits."""
        for subscription in self._subscriptions:
            await subscription.cancel()
        if self._held is not None:
            self._held.nack()
        while not self._waiting.empty():
            self._waiting.get_nowait().nack()

    def _on_delivery(self, delivery: Incoming) -> None:
        if make_room(self._waiting):
            self._waiting.put_nowait(delivery)
        else:
            delivery.nack()

    async def _record(self, delivery: Incoming) -> None:
        message = delivery.message
        record = consumer_dead_letter(
            id=self._ids.message_id(),
            queue=delivery.queue,
            message=message,
            message_id=message.id or self._ids.message_id(),
            reason=f"broker:{delivery.dead_reason}",
            error=None,
            detail=f"the broker gave it up ({delivery.dead_reason}); it belongs to queue {delivery.queue}",
            attempts=history_of(message),
            now=self._clock.now(),
        )
        await keep(self._dead_letters, self._transaction, record)
        failpoint("dead_letter.after_bridge")
        delivery.ack()
