"""The consumer of one queue: a subscription and as many lanes as its handlers may run at once.

A lane is a supervised loop that runs one delivery at a time. Deliveries wait in a queue with room for `prefetch`, which
is also what the broker is told: only stale ones can fill it, and they make room.

Draining: cancel the subscription, hand back what no lane has started, let running handlers end within the limit.
"""

from __future__ import annotations

import asyncio
import logging

from spoolproof.consumer.execution import Execution
from spoolproof.consumer.gate import GateClosing
from spoolproof.consumer.waiting import make_room
from spoolproof.ports.broker import Broker, Subscription
from spoolproof.ports.broker import Delivery as BrokerDelivery

logger = logging.getLogger("spoolproof.consumer")

_IDLE_SECONDS = 5.0


class Worker:
    """Consumes one queue."""

    def __init__(self, queue: str, execution: Execution, broker: Broker, *, concurrency: int, prefetch: int) -> None:
        self.queue = queue
        self._execution = execution
        self._broker = broker
        self._prefetch = prefetch
        self._waiting: asyncio.Queue[BrokerDelivery | None] = asyncio.Queue(maxsize=prefetch + concurrency)
        self._subscription: Subscription | None = None
        self._is_draining = False
        self.lanes = tuple(Lane(self, number) for number in range(concurrency))
        self.in_flight = 0

    @property
    def is_subscribed(self) -> bool:
        """Whether the broker delivers to this queue's consumer now."""
        return self._subscription is not None and self._subscription.is_active

    async def subscribe(self) -> None:
        """Begin to consume, as soon as the broker is there."""
        self._subscription = await self._broker.subscribe(self.queue, self._prefetch, self._on_delivery)

    async def begin_drain(self) -> None:
        """Take nothing new and hand back what was not started; running handlers go on."""
        self._is_draining = True
        if self._subscription is not None:
            await self._subscription.cancel()
        while not self._waiting.empty():
            delivery = self._waiting.get_nowait()
            if delivery is not None:
                delivery.nack()
        for _ in self.lanes:
            self._waiting.put_nowait(None)

    async def run_one(self) -> None:
        """Run the next delivery, or return after a few idle seconds."""
        if self._waiting.empty():
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    delivery = await self._waiting.get()
            except TimeoutError:
                return
        else:
            delivery = self._waiting.get_nowait()
        if delivery is None:
            return
        self.in_flight += 1
        try:
            await self._execution.handle(delivery)
        except GateClosing:
            delivery.nack()
        except Exception:
            # nothing in the product expects this: the broker delivers again, and past its limit dead-letters by itself
            logger.exception("consumer.execution_failed queue=%s id=%s", self.queue, delivery.message.id)
            delivery.nack()
        finally:
            self.in_flight -= 1

    def _on_delivery(self, delivery: BrokerDelivery) -> None:
        if self._is_draining or not make_room(self._waiting):
            delivery.nack()
        else:
            self._waiting.put_nowait(delivery)


class Lane:
    """One handler of a worker at a time, as a supervised loop."""

    stall_seconds: float | None = None  #: its turns last as long as the user's handler

    def __init__(self, worker: Worker, number: int) -> None:
        self._worker = worker
        self.name = f"consumer.{worker.queue}.{number}"

    async def start(self) -> None:
        """Nothing: the worker subscribes."""

    async def run_once(self) -> None:
        """Run one delivery, or wait a few seconds for one."""
        await self._worker.run_one()

    async def drain(self) -> None:
        """Nothing is left: a cut-off delivery stays unsettled and the broker takes it back."""

    async def stop(self) -> None:
        """Nothing to let go of."""
