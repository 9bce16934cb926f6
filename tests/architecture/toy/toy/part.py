"""Toys in one process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet
from spoolproof.ports.toys import Toys
from spoolproof.telemetry.metrics import Labels, Metric
from spoolproof.toy.events import TOYS
from spoolproof.toy.settings import ToySettings
from spoolproof.toy.winder import WIND, Winder


class ToyPart(Part):
    """Winds toys up, in the one process that leads, and tells which are broken."""

    def __init__(self, of: Context) -> None:
        self.toys = of.store.port(Toys)
        self._lead = Holding("toy", [WIND], of.clock, of.fence_seconds)
        seconds = of.settings.of(ToySettings).wind_seconds
        self._winder = Winder(self.toys, self._lead, seconds=seconds, clock=of.clock)

    def holdings(self) -> Sequence[Holding]:
        """Return the lead."""
        return (self._lead,)

    def loops(self) -> Sequence[Loop]:
        """Return what winds them up."""
        return (self._winder,)

    def report(self) -> Report:
        """Tell which toys are broken."""
        return Report(issues=tuple(f"toy {name}: broken" for name, is_broken in self._winder.seen.items() if is_broken))

    def measures(self) -> Iterable[tuple[Metric, Labels, float]]:
        """Return how many toys there are."""
        return [(TOYS, (), len(self._winder.seen))]


class ToyFacet(Facet):
    """`service.toys`."""

    async def play(self, name: str, *, breaks: bool = False) -> None:
        """Play with a toy. Raises StoreUnavailable; NotFound where this process has no toys."""
        await self.host.part(ToyPart).toys.play(name, breaks=breaks)


TOY = Entry(ToyPart, ToyFacet)
