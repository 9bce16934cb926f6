"""Counts what waits in the queues this process reads, for whoever watches the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from spoolproof.clock import Clock
from spoolproof.consumer.events import QUEUE_MESSAGES
from spoolproof.errors import BrokerUnavailable
from spoolproof.lifecycle.loop import Loop
from spoolproof.ports.broker import Broker
from spoolproof.telemetry.metrics import Measure

_COUNT_SECONDS = 10.0


class QueueDepths(Loop):
    """The loop that asks the broker every 10 s; what it cannot tell is missing among the metrics."""

    name = "queue_depths"
    stall_seconds: float | None = 6 * _COUNT_SECONDS

    def __init__(self, queues: Sequence[str], broker: Broker, *, clock: Clock) -> None:
        self._queues = tuple(queues)
        self._broker = broker
        self._clock = clock
        self._depths: dict[str, int] = {}

    async def run_once(self) -> int:
        """Count once, then rest."""
        depths: dict[str, int] = {}
        for queue in self._queues:
            with suppress(BrokerUnavailable):
                depth = await self._broker.depth(queue)
                if depth is not None:
                    depths[queue] = depth
        self._depths = depths
        await self._clock.sleep(_COUNT_SECONDS)
        return len(depths)

    def measures(self) -> Iterator[Measure]:
        """Yield what waits in each queue."""
        yield from ((QUEUE_MESSAGES, (queue,), depth) for queue, depth in self._depths.items())
