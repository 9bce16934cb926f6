"""The outbox in one process: the leases on its shards and the relay that ships them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.outbox.relay import Relay
from spoolproof.outbox.suspects import RowSuspects
from spoolproof.telemetry.metrics import Measure


class RelayPart(Part):
    """Ships the rows of the shards this process holds."""

    def __init__(self, of: Context) -> None:
        self._of = of
        self._shards: Holding | None = None
        self._relay: Relay | None = None

    def holdings(self) -> Sequence[Holding]:
        """Return the lease on each shard of the service."""
        own = self._of.store.services.own
        self._shards = Holding(own.lease_kind, own.lease_names, self._of.clock, self._of.fence_seconds)
        return (self._shards,)

    def loops(self) -> Sequence[Loop]:
        """Return the relay."""
        (shards,) = (self._shards,) if self._shards is not None else self.holdings()
        store, clock = self._of.store, self._of.clock
        self._relay = Relay(
            *(store.outbox, store.dead_letters, store.wakeup, self._of.broker, shards),
            clock=clock,
            ids=self._of.ids,
            suspects=RowSuspects(store.state, store.leases, self._of.service, self._of.process_id, clock=clock),
        )
        return (self._relay,)

    def report(self) -> Report:
        """Tell whether the leases may still be acted under, and what the relay leaves alone."""
        paused = () if self._relay is None else self._relay.paused
        leads = self._shards is not None and self._shards.fence_for(self._shards.names[0]) is not None
        return Report(
            leads_service=leads,
            is_fenced=self._shards is not None and self._shards.is_fenced,
            issues=tuple(f"outbox: {one} rests: the broker took no more of it; its events wait" for one in paused),
        )

    def measures(self) -> Iterable[Measure]:
        """Return the relay's."""
        return () if self._relay is None else self._relay.measures()


RELAY = Entry(RelayPart)
