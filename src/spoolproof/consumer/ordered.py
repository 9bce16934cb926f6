"""The consumer of an ordered queue: what runs out of the lanes keeps the order of each key.

One subscription, in one process at a time, for the full prefetch: a gate holds back only what begins. A failed message
waits in its place for its next attempt; its lane waits with it, and its handler's place goes to others.

Why order holds over crashes, too: a process runs a key's messages one after the other and goes on only from one that is
done, so whichever of two processes commits a message, all before it were done. That is why nothing leaves from the
middle: no copies, no nack. What cannot stay goes back with all that came after it, by giving back the whole
subscription, once what runs has ended; on a drain it stays unsettled until the broker is left.
"""

from __future__ import annotations

import asyncio
from typing import Any

from spoolproof import limits
from spoolproof.consumer.events import ExecutionFailed, OrderedGoesBack
from spoolproof.consumer.gate import GateClosing
from spoolproof.consumer.lanes import Lanes
from spoolproof.consumer.policy_gate import Intake
from spoolproof.consumer.waiting import Waiting
from spoolproof.consumer.work import Begun, GoBack
from spoolproof.consumer.worker import Worker
from spoolproof.errors import BrokerUnavailable
from spoolproof.message import message_key
from spoolproof.ports.broker import Incoming
from spoolproof.telemetry.events import emit

_NOTHING = Intake(0, 0)


class OrderedWorker(Worker):
    """Consumes one ordered queue."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """See Worker."""
        super().__init__(*args, **options)
        self._begun: dict[str, Begun] = {}
        self._wanted = self._intake
        self._goes_back = False
        self._has_ended = asyncio.Event()

    def _room(self, most: int) -> Lanes:
        self._lanes = Lanes(most)
        return self._lanes

    async def take_in(self, intake: Intake) -> None:
        """Let so many handlers begin; with a gate that is shut for long the queue is left to itself."""
        self.limit_lanes(intake)
        async with self._changing:
            if self._is_draining or self._goes_back:
                return
            if intake.prefetch > 0 and not self._subscriptions:
                await self._subscribe(self._prefetch)
            elif intake.prefetch == 0 and intake.holds == 0 and self._subscriptions:
                self._go_back()

    def limit_lanes(self, intake: Intake) -> None:
        """Let no more handlers than this begin from now on."""
        self._wanted = intake
        super().limit_lanes(_NOTHING if self._goes_back else intake)

    async def begin_drain(self) -> None:
        """Begin nothing more. What is not settled goes back when the broker is left, all at once: another process must
        not get the next message of a key whose last one still runs here."""
        self._is_draining = True
        self._lanes.clear()
        for _ in self.lanes:
            self._lanes.put_nowait(None)
        self._intake_grew.set()

    def _is_worn(self, delivery: Incoming) -> bool:
        return False  # its queue sets no limit that could be reached, and a copy would lose its place

    async def _run(self, waiting: Waiting) -> None:
        delivery = waiting.delivery
        name = message_key(delivery.message) or str(id(waiting))
        begun = self._begun.get(name) or Begun()
        rests = False
        try:
            work = await self._execution.handle(delivery, waiting.arrived_at, begun)
        except GateClosing:
            self.outcomes["returned"] += 1
        except GoBack:
            self._remember(name, begun)
            self._go_back()
        except Exception as error:
            emit(ExecutionFailed(queue=self.queue, message_id=delivery.message.id), error=error)
            self._go_back()
        except BaseException:
            if not self._is_draining:
                self._go_back()
            raise
        else:
            if work.again_seconds is None:
                self._begun.pop(name, None)
                self._note(work)
            else:
                rests = True
                self._remember(name, begun)
                self._spawn(self._rest(waiting, work.again_seconds), f"consumer.{self.queue}.rest")
        finally:
            self._has_ended.set()
            if not rests:
                self._lanes.done(waiting)  # if it goes back, nothing begins until all have

    async def _rest(self, waiting: Waiting, seconds: float) -> None:
        await self._clock.sleep(seconds)
        if not self._is_draining:
            self._lanes.put_back(waiting)

    def _remember(self, name: str, begun: Begun) -> None:
        self._begun[name] = begun
        if len(self._begun) > limits.ORDERED_BEGUN_MAX:
            del self._begun[next(iter(self._begun))]

    def _go_back(self) -> None:
        """Send everything back to the broker, in order, and take it from there again."""
        if not self._goes_back and not self._is_draining:
            self._goes_back = True
            super().limit_lanes(_NOTHING)
            emit(OrderedGoesBack(queue=self.queue))
            self._spawn(self._go_all_back(), f"consumer.{self.queue}.back")

    async def _go_all_back(self) -> None:
        await self._clock.sleep(limits.ORDERED_BACK_SECONDS)  # or what is at fault would come fifty times in a second
        until = self._clock.monotonic() + limits.DRAIN_SECONDS
        while self.in_flight and (left := until - self._clock.monotonic()) > 0:
            self._has_ended.clear()
            try:
                async with asyncio.timeout(left):
                    await self._has_ended.wait()
            except TimeoutError:
                break
            await asyncio.sleep(0)  # who has ended leaves in this turn
        async with self._changing:
            await self._unsubscribe()
            self._lanes.clear()
            self._goes_back = False
            super().limit_lanes(self._wanted)
            try:
                if self._wanted.prefetch > 0 and not self._is_draining:
                    await self._subscribe(self._prefetch)
            except BrokerUnavailable:
                return  # the service ends

    async def _unsubscribe(self) -> None:
        while self._subscriptions:
            await self._subscriptions[-1].give_back()
            self._subscriptions.pop()
        self._subscribed = 0

    def _drop(self, waiting: Waiting) -> None:
        self._lanes.done(waiting)

    def _put_back(self, waiting: Waiting) -> None:
        self._lanes.put_back(waiting)

    def _keep(self, waiting: Waiting) -> None:
        if not self._is_draining:
            self._lanes.add(waiting)

    def _give_back(self, delivery: Incoming) -> None:
        self._go_back()
