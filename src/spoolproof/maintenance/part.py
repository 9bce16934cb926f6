"""Housekeeping, and what policies know over the life of a process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spoolproof.dead_letters.worker import BulkWorker
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.maintenance.breakers import Breakers
from spoolproof.maintenance.facts import FactExchange
from spoolproof.maintenance.policy_measures import PolicyMeasures
from spoolproof.maintenance.prune import LEADER, PRUNE, Pruner
from spoolproof.policies import Registry
from spoolproof.telemetry.metrics import Measure


class MaintenancePart(Part):
    """Prunes, in the one process that leads."""

    def __init__(self, of: Context) -> None:
        self._leadership = Holding(LEADER, [PRUNE], of.clock, of.fence_seconds)
        self._bulks = BulkWorker(of.store, self._leadership, PRUNE, clock=of.clock)
        self._pruner = Pruner(of.store.retention, self._leadership, setting=of.settings.named, clock=of.clock)

    def holdings(self) -> Sequence[Holding]:
        """Return the lead."""
        return (self._leadership,)

    def loops(self) -> Sequence[Loop]:
        """Return the pruner, and what moves dead letters by the hundred."""
        return (self._pruner, self._bulks)

    def report(self) -> Report:
        """Tell whether this process leads all of the store."""
        return Report(leads_database=self._leadership.fence_for(PRUNE) is not None)


class PoliciesPart(Part):
    """Keeps what breakers know in the store, and tells the other processes of the service."""

    def __init__(self, of: Context) -> None:
        self._policies = of.the(Registry)
        self._breakers = Breakers(of.service, self._policies, of.store.state, clock=of.clock)
        self._measures = PolicyMeasures(self._policies, self._breakers.log)
        self._facts = FactExchange(of.service, self._policies, of.store.state, clock=of.clock)
        self._policies.resume()  # a service that ran before in this process may have drained them

    def loops(self) -> Sequence[Loop]:
        """Return what saves and what tells."""
        return (self._breakers, self._facts)

    async def restore(self) -> None:
        """Let breakers that were open be open again."""
        await self._breakers.restore()

    async def begin_drain(self) -> None:
        """Let no call wait in a back-off: its message is better deferred."""
        self._policies.drain()

    def report(self) -> Report:
        """Tell which breakers refuse calls."""
        return Report(issues=self._breakers.log.issues())

    def measures(self) -> Iterable[Measure]:
        """Return what the policies have counted."""
        return self._measures.measures()

    def ended(self) -> None:
        """Let the policies serve whoever uses them next."""
        self._policies.resume()


POLICIES = Entry(PoliciesPart)
MAINTENANCE = Entry(MaintenancePart)
