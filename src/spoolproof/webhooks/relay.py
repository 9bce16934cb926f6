"""The outbox's relay over the shards of webhooks; endpoints without room are left alone like a queue that is full.

It looks at the endpoints before a turn. Where there are none it turns every 5 s, for rows of endpoints that are gone.
"""

from __future__ import annotations

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.destination import Destination, to_endpoint
from spoolproof.ids import Ids
from spoolproof.lifecycle.membership import Holding
from spoolproof.outbox.pauses import Pauses
from spoolproof.outbox.relay import Relay
from spoolproof.ports.store import Store
from spoolproof.webhooks.delivery import Delivery
from spoolproof.webhooks.directory import Directory
from spoolproof.webhooks.events import SECONDS


class EndpointPauses(Pauses):
    """Leaves alone what has no room."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__()
        self._delivery = delivery

    def admit(self, destination: Destination, type: str, now: float) -> bool:
        """Whether a row may be handed over now."""
        return self._delivery.has_room(destination.name)

    def paused(self, now: float) -> list[str]:
        """Return the destinations a fetch should leave out."""
        return [str(to_endpoint(name)) for name in self._delivery.without_room()]


class WebhookRelay(Relay):
    """The loop that ships the webhooks of the shards this process holds."""

    name = "webhooks"

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        directory: Directory,
        shards: Holding,
        *,
        clock: Clock,
        ids: Ids,
    ) -> None:
        super().__init__(
            *(store.outbox, store.dead_letters, self, delivery, shards),
            clock=clock,
            ids=ids,
            pauses=EndpointPauses(delivery),
            confirm_seconds=SECONDS,
        )
        self._directory = directory

    def notify(self) -> None:
        """Look for rows now: rung by every publish of this process. Others' rows are found by the poll."""
        self._stirred.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """Return True when rung or answered, False after `timeout_seconds`."""
        if not self._stirred.is_set():
            await self._until_stirred(timeout_seconds)
        is_stirred = self._stirred.is_set()
        self._stirred.clear()
        return is_stirred

    async def run_once(self) -> int:
        """Look at the endpoints when it is time, then ship and settle one batch."""
        await self._directory.look_when_due()
        if not self._directory.endpoints:
            await self._directory.until_stirred(limits.WEBHOOK_LOOK_SECONDS)
            await self._directory.look_when_due()
        return await super().run_once()

    async def _wait(self) -> None:
        if self._in_flight and not self._answered:
            # a request may take 15 s: no need to ask the store 20 times a second meanwhile
            is_stirred = await self.wait(self._poll_seconds)
            longer = min(limits.POLL_MAX_SECONDS, 2 * self._poll_seconds)
            self._poll_seconds = limits.POLL_FIRST_SECONDS if is_stirred else longer
        else:
            await super()._wait()
