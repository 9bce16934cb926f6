"""Housekeeping, and what policies know over the life of a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spoolproof.clock import Clock
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.maintenance.breakers import Breakers
from spoolproof.maintenance.facts import FactExchange
from spoolproof.maintenance.prune import LEADER, PRUNE, Pruner
from spoolproof.maintenance.queues import QueueWatch
from spoolproof.policies import Registry
from spoolproof.ports.broker import Broker
from spoolproof.ports.leases import Leases
from spoolproof.ports.retention import Retention
from spoolproof.ports.state import State


class MaintenancePart(Part):
    """Prunes, in the one process that leads."""

    def __init__(
        self, retention: Retention, *, setting: Callable[[str], float], fence_seconds: float, clock: Clock
    ) -> None:
        self._leadership = Holding(LEADER, [PRUNE], clock, fence_seconds)
        self._pruner = Pruner(retention, self._leadership, setting=setting, clock=clock)

    def holdings(self) -> Sequence[Holding]:
        """Return the lead."""
        return (self._leadership,)

    def loops(self) -> Sequence[Loop]:
        """Return the pruner."""
        return (self._pruner,)


class QueuesPart(Part):
    """Finds queues that a renamed handler has left behind; in processes that have handlers, which know theirs."""

    def __init__(
        self, service: str, queues: Sequence[str], state: State, leases: Leases, broker: Broker, *, clock: Clock
    ) -> None:
        self._watch = QueueWatch(service, queues, state, leases, broker, clock=clock)

    def loops(self) -> Sequence[Loop]:
        """Return what looks."""
        return (self._watch,)

    def report(self) -> Report:
        """Tell which queues nobody reads."""
        return Report(issues=self._watch.issues())


class PoliciesPart(Part):
    """Keeps what breakers know in the store, and tells the other processes of the service."""

    needs_store = False

    def __init__(self, service: str, policies: Registry, state: State, *, clock: Clock) -> None:
        self._policies = policies
        self._breakers = Breakers(service, policies, state, clock=clock)
        self._facts = FactExchange(service, policies, state, clock=clock)
        policies.resume()  # a service that ran before in this process may have drained them

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

    def ended(self) -> None:
        """Let the policies serve whoever uses them next."""
        self._policies.resume()
