"""What the policies protect, as a part: one loop that watches them, and what health and metrics show of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spoolproof.health.dependencies import Dependencies
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.part import Part, Report
from spoolproof.telemetry.metrics import Measure


class DependenciesPart(Part):
    """Watches in every process, also before its store was reached."""

    needs_store = False

    def __init__(self, of: Context) -> None:
        self._dependencies = of.the(Dependencies)

    def loops(self) -> Sequence[Loop]:
        """Return what watches."""
        return (self._dependencies,)

    def report(self) -> Report:
        """Tell how each is."""
        return Report(dependencies=self._dependencies.known())

    def measures(self) -> Iterable[Measure]:
        """Return what is known of each."""
        return self._dependencies.measures()


DEPENDENCIES = Entry(DependenciesPart)
