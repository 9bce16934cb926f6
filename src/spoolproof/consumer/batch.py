"""The consumer of a queue whose handler takes many messages at once.

What has arrived, up to `batch` messages or `batch_seconds` after the first, runs in one call and one transaction: every
inbox row, every effect and every publish commits together, and each delivery is acked by itself after it. If that
fails, for whatever reason, all of it is rolled back and each message runs by itself as any other does, in a list of
one: so one bad message costs its neighbours no attempt, and what is retried or given up is one message.

A message that comes again runs by itself at once: it may be what the last batch failed over, or have a dead letter.
"""

from __future__ import annotations

import asyncio
from typing import Any

from spoolproof.consumer.gate import GateClosing
from spoolproof.consumer.waiting import Waiting
from spoolproof.consumer.worker import Worker


class BatchWorker(Worker):
    """Consumes one queue, many messages at a time."""

    def __init__(self, *args: Any, batch: int, batch_seconds: float, **options: Any) -> None:
        """See Worker. batch: messages at most in one call. batch_seconds: how long the first waits for others."""
        super().__init__(*args, **options)
        self._batch = batch
        self._batch_seconds = batch_seconds

    async def _run(self, waiting: Waiting) -> None:
        gathered = [waiting]
        try:
            await self._gather(gathered)
            first = [one.delivery for one in gathered if one.delivery.delivery_count == 0 and not one.is_stale]
            settled = await self._together(first) if len(first) > 1 else set()
            gathered = [one for one in gathered if id(one.delivery) not in settled]
            while gathered and not self._is_draining:
                one = gathered.pop(0)
                if not one.is_stale:
                    await super()._run(one)
        except GateClosing:
            self.outcomes["returned"] += len(gathered)
        finally:  # a drain, or a lane that its handler has cancelled: nobody else would settle what is left
            for one in gathered:
                one.delivery.nack()

    async def _together(self, deliveries: list[Any]) -> set[int]:
        works = await self._execution.handle_together(deliveries)
        for work in works:
            self._note(work)
        return {id(work.delivery) for work in works}

    async def _gather(self, gathered: list[Waiting]) -> None:
        until = self._clock.monotonic() + self._batch_seconds
        while len(gathered) < self._batch and not self._is_draining:
            try:
                async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                    waiting = await self._waiting.get()
            except TimeoutError:
                break
            if waiting is None:  # a word to some lane that waits
                self._waiting.put_nowait(None)
                break
            gathered.append(waiting)
