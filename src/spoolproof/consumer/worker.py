"""The consumer of one queue: a subscription and as many lanes as its handlers may run at once.

A lane is a supervised loop that runs one delivery at a time. Deliveries wait in a queue with room for `prefetch`, which
is also what the broker is told: only stale ones can fill it, and they make room.

A gated worker is told how much to take in. More is asked for with one more subscription beside those there are, never
by ending one: what arrives while a subscription ends is sent back, which the broker counts.

Draining: cancel the subscription, hand back what no lane has started, let running handlers end within the limit.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.events import (
    CONSUMER_IN_FLIGHT,
    DELIVERIES,
    END_TO_END,
    GATE_OPEN,
    HANDLER_SECONDS,
    LAST_ACK,
    ExecutionFailed,
)
from spoolproof.consumer.execution import Execution
from spoolproof.consumer.gate import GateClosing
from spoolproof.consumer.moved import Moved
from spoolproof.consumer.policy_gate import Intake
from spoolproof.consumer.waiting import Waiting, make_room
from spoolproof.consumer.work import Work
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.ports.broker import Broker, Incoming, Spawn, Subscription
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER, Measure

_IDLE_SECONDS = 5.0
_TROUBLE_SECONDS = 1.0
_SETTLED_AT = 256  #: handler runs whose times are counted at once


class Worker:
    """Consumes one queue."""

    def __init__(
        self,
        queue: str,
        execution: Execution,
        broker: Broker,
        *,
        concurrency: int,
        prefetch: int,
        is_gated: bool = False,
        formerly: Sequence[str] = (),
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        """is_gated: a gate tells it how much to take in; else it begins by itself. formerly: queues its handlers had
        before, whose messages are taken as this one's."""
        self.queue = queue
        self._execution = execution
        self._broker = broker
        self._prefetch = prefetch
        self._is_gated = is_gated
        self._clock = clock
        self._spawn = spawn
        self._formerly = tuple(formerly)
        self._waiting: asyncio.Queue[Waiting | None] = self._room(prefetch * (1 + len(formerly)) + concurrency)
        self._subscriptions: list[Subscription] = []
        self._subscribed = 0  #: the prefetch of all subscriptions together
        self._intake = Intake(concurrency, prefetch)
        self._intake_grew = asyncio.Event()
        self._changing = asyncio.Lock()
        self._is_draining = False
        self.lanes = tuple(Lane(self, number) for number in range(concurrency))
        self.taking = 0  #: lanes that run a delivery or wait for one
        self.in_flight = 0
        self.handled = 0
        self.outcomes: Counter[str] = Counter()  #: other than handled
        self._handled_at: datetime | None = None
        self._handler_seconds = METER.spread(HANDLER_SECONDS, queue)
        self._end_to_end = METER.spread(END_TO_END, queue)

    def _room(self, most: int) -> asyncio.Queue[Waiting | None]:
        return asyncio.Queue(maxsize=most)

    @property
    def is_subscribed(self) -> bool:
        """Whether the broker delivers to this queue's consumer now, or a gate wants it not to."""
        return self._intake.prefetch == 0 or any(one.is_active for one in self._subscriptions)

    @property
    def is_busy(self) -> bool:
        """Whether it runs a delivery, or has one that it will run at once."""
        return self.in_flight > 0 or (self._intake.lanes > 0 and not self._waiting.empty())

    async def subscribe(self) -> None:
        """Begin to consume, as soon as the broker is there, unless a gate will say so. Safe to repeat."""
        if not self._is_gated:
            await self.take_in(self._intake)

    async def take_in(self, intake: Intake) -> None:
        """Take in this much from now on; running handlers go on. Raises BrokerUnavailable if the broker is stopped."""
        async with self._changing:
            if self._is_draining:
                return
            self.limit_lanes(intake)
            if intake.prefetch == 0:
                if self._subscribed > intake.holds:
                    await self._unsubscribe()
                    self._hand_back()
            elif 2 * intake.prefetch <= self._subscribed:
                await self._unsubscribe()
                self._hand_back()
                await self._subscribe(intake.prefetch)
            elif intake.prefetch == self._prefetch or intake.prefetch >= 2 * self._subscribed:
                # in between, few large steps: each is a subscription of its own
                await self._subscribe(intake.prefetch - self._subscribed)

    def limit_lanes(self, intake: Intake) -> None:
        """Let no more lanes than this begin from now on."""
        before, self._intake = self._intake, intake
        if intake.lanes > before.lanes:
            self._intake_grew.set()
        if intake.lanes >= before.lanes:
            return
        # those that wait for a delivery may be too many now: let them look again
        for _ in range(min(self.taking - self.in_flight, self._waiting.maxsize - self._waiting.qsize())):
            self._waiting.put_nowait(None)

    async def begin_drain(self) -> None:
        """Take nothing new and hand back what was not started; running handlers go on."""
        self._is_draining = True
        async with self._changing:
            await self._unsubscribe()
        self._hand_back()
        for _ in self.lanes:
            self._waiting.put_nowait(None)
        self._intake_grew.set()

    async def run_one(self) -> bool:
        """Run the next delivery, or return False after a few idle seconds."""
        if self.taking >= self._intake.lanes:
            await self._wait_for_intake()
            return False
        self.taking += 1
        try:
            return await self._take_one()
        finally:
            self.taking -= 1

    async def _take_one(self) -> bool:
        if self._waiting.empty() or len(self._handler_seconds.pending) >= _SETTLED_AT:
            self._handler_seconds.settle()
            self._end_to_end.settle()
        if self._waiting.empty():
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    waiting = await self._waiting.get()
            except TimeoutError:
                return False
        else:
            waiting = self._waiting.get_nowait()
        if waiting is None:
            return False
        if waiting.is_stale:  # the broker delivers it again by itself
            self._drop(waiting)
            return False
        if self.in_flight >= self._intake.lanes:  # the gate closed on the way here
            self._put_back(waiting)
            return False
        self.in_flight += 1
        try:
            await self._run(waiting)
        finally:
            self.in_flight -= 1
        return True

    async def _run(self, waiting: Waiting) -> None:
        delivery = waiting.delivery
        try:
            self._note(await self._execution.handle(delivery, waiting.arrived_at))
        except GateClosing:
            self.outcomes["returned"] += 1
            delivery.nack()
        except Exception as error:
            # nothing in the product expects this: the broker delivers again, and past its limit dead-letters by itself
            self.outcomes["returned"] += 1
            emit(ExecutionFailed(queue=self.queue, message_id=delivery.message.id), error=error)
            await asyncio.sleep(_TROUBLE_SECONDS)  # or it would come fifty times in a second
            delivery.nack()
        except BaseException:
            if not self._is_draining:  # the lane was cancelled by its handler: it goes on, so this must not be kept
                delivery.nack()
            raise

    def _note(self, work: Work) -> None:
        if work.outcome != "handled":
            self.outcomes[work.outcome] += 1
            return
        self.handled += 1
        self._handled_at = work.received_at
        self._end_to_end.pending.append((work.received_at - work.message.time).total_seconds())

    def measures(self, *, is_gate_shut: bool) -> Iterator[Measure]:
        """Yield what became of its deliveries, and what it is doing. is_gate_shut: the store keeps it waiting."""
        yield DELIVERIES, (self.queue, "handled"), self.handled
        for outcome, count in list(self.outcomes.items()):
            yield DELIVERIES, (self.queue, outcome), count
        yield CONSUMER_IN_FLIGHT, (self.queue,), self.in_flight
        yield GATE_OPEN, (self.queue,), float(self._intake.prefetch > 0 and not is_gate_shut)
        if self._handled_at is not None:
            yield LAST_ACK, (self.queue,), self._handled_at.timestamp()

    async def _wait_for_intake(self) -> None:
        self._intake_grew.clear()
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                await self._intake_grew.wait()
        except TimeoutError:
            return

    async def _subscribe(self, prefetch: int) -> None:
        if prefetch > 0:
            self._subscriptions.append(await self._broker.subscribe(self.queue, prefetch, self._on_delivery))
            for former in self._formerly:
                self._subscriptions.append(await self._broker.subscribe(former, prefetch, self._on_former))
            self._subscribed += prefetch

    async def _unsubscribe(self) -> None:
        while self._subscriptions:
            await self._subscriptions[-1].cancel()
            self._subscriptions.pop()
        self._subscribed = 0

    def _hand_back(self) -> None:
        while not self._waiting.empty():
            waiting = self._waiting.get_nowait()
            if waiting is not None:
                self._give_back(waiting.delivery)

    def _give_back(self, delivery: Incoming) -> None:
        """Let the broker deliver it again. A breaker that flaps must not wear it out, up to the broker's own limit."""
        if self._is_worn(delivery) and not self._is_draining:
            self._spawn(self._execution.renew(delivery), f"consumer.{self.queue}.renew")
        else:
            delivery.nack()

    def _is_worn(self, delivery: Incoming) -> bool:
        """Whether the broker has counted so many deliveries that a copy, counted anew, takes its place."""
        is_worn = delivery.delivery_count >= limits.DELIVERIES_WORN and not delivery.is_stale
        return is_worn and delivery.fault is None  # what cannot be read cannot be copied

    def _on_delivery(self, delivery: Incoming) -> None:
        if self._is_worn(delivery):  # by restarts, each of which hands back what nobody has run
            self._give_back(delivery)
        else:
            self._keep(Waiting(delivery, self._clock.monotonic()))

    def _on_former(self, delivery: Incoming) -> None:
        self._on_delivery(Moved(delivery, self.queue))

    def _drop(self, waiting: Waiting) -> None:
        """Let go of a stale one."""

    def _put_back(self, waiting: Waiting) -> None:
        self._keep(waiting)

    def _keep(self, waiting: Waiting) -> None:
        is_shut = self._intake.prefetch == 0 and not self._subscriptions
        if self._is_draining or is_shut or not make_room(self._waiting):
            self._give_back(waiting.delivery)
        else:
            self._waiting.put_nowait(waiting)


class Lane(Loop):
    """One handler of a worker at a time, as a supervised loop."""

    stall_seconds: float | None = None  #: its turns last as long as the user's handler
    phase = Phase.HANDLE

    def __init__(self, worker: Worker, number: int) -> None:
        self._worker = worker
        self.name = f"consumer.{worker.queue}.{number}"

    async def start(self) -> None:
        """Let the worker subscribe; the first lane does."""
        await self._worker.subscribe()

    async def run_once(self) -> int:
        """Run one delivery, or wait a few seconds for one."""
        return int(await self._worker.run_one())
