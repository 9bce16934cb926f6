"""The outbox in one process: the leases on its shards and the relay that ships them."""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof.clock import Clock
from spoolproof.ids import Ids
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.outbox.relay import Relay
from spoolproof.ports.broker import Broker
from spoolproof.ports.dead_letters import DeadLetters
from spoolproof.ports.outbox import Outbox
from spoolproof.ports.services import Services
from spoolproof.ports.wakeup import WakeUp


class RelayPart(Part):
    """Ships the rows of the shards this process holds."""

    def __init__(
        self,
        services: Services,
        outbox: Outbox,
        dead_letters: DeadLetters,
        wakeup: WakeUp,
        broker: Broker,
        *,
        fence_seconds: float,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._services = services
        self._ports = outbox, dead_letters, wakeup
        self._broker = broker
        self._fence_seconds = fence_seconds
        self._clock = clock
        self._ids = ids
        self._shards: Holding | None = None
        self._relay: Relay | None = None

    def holdings(self) -> Sequence[Holding]:
        """Return the lease on each shard of the service."""
        own = self._services.own
        self._shards = Holding(own.lease_kind, own.lease_names, self._clock, self._fence_seconds)
        return (self._shards,)

    def loops(self) -> Sequence[Loop]:
        """Return the relay."""
        (shards,) = (self._shards,) if self._shards is not None else self.holdings()
        self._relay = Relay(*self._ports, self._broker, shards, clock=self._clock, ids=self._ids)
        return (self._relay,)

    def report(self) -> Report:
        """Tell whether the leases may still be acted under, and what the relay leaves alone."""
        paused = () if self._relay is None else self._relay.paused
        return Report(
            is_fenced=self._shards is not None and self._shards.is_fenced,
            issues=tuple(f"outbox: {one} rests: the broker took no more of it; its events wait" for one in paused),
        )
