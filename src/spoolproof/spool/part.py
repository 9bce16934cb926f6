"""The spool in one process: which way its publishes go, and the loop that empties what was kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spoolproof import limits
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.part import Part, Report
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.receipt import Place
from spoolproof.ports.spool import Spools
from spoolproof.spool.drainer import Drainer
from spoolproof.spool.events import BYTES, OLDEST, ROWS
from spoolproof.spool.spool import Spool
from spoolproof.telemetry.metrics import Measure


class SpoolPart(Part):
    """Takes what the store does not, and brings it back."""

    needs_store = False

    def __init__(self, of: Context) -> None:
        self._spools = of.the(Spools)
        self._spool = Spool(self._spools, of.clock)
        self._drainer = Drainer(
            *(self._spool, self._spools, of.service, of.store, of.broker), clock=of.clock, ids=of.ids
        )
        if self._spools.folder is None:
            return
        if self._spools.is_home:
            of.the(Publisher).place = Place.SPOOLED
        else:
            of.the(Publisher).beside = self._spool

    def loops(self) -> Sequence[Loop]:
        """Return the loop that empties, if there is a spool."""
        return () if self._spools.folder is None else (self._drainer,)

    def store_reached(self) -> None:
        """Let publishes go to the store from now on."""
        self._drainer.is_store_reached = True
        self._spool.store_answers()

    @property
    def waiting(self) -> int:
        """How many events wait in the files this process has open."""
        return sum(file.rows for file in self._spools.open)

    @property
    def adopted(self) -> int:
        """How many events were found in files that processes left behind."""
        return self._drainer.adopted

    @property
    def is_empty(self) -> bool:
        """Whether it has looked for files, and none it holds keeps anything."""
        return self._drainer.is_idle

    def report(self) -> Report:
        """Tell whether it takes events, and what a person should look at."""
        is_on, issues = self._spools.folder is not None, list[str]()
        rows = 0 if self._spools.is_home else self.waiting
        if rows:
            issues.append(f"spool: {rows} event{'s wait' if rows > 1 else ' waits'} in {self._spools.folder}")
        if self._spool.fullness >= limits.SPOOL_FILLING:
            issues.append(f"spool: {self._spool.fullness:.0%} of its limit; at 100% publish raises SpoolFull")
        issues += [f"spool: {path} was damaged; what could be read goes on" for path in self._drainer.damaged]
        if self._drainer.trouble:
            issues.append(self._drainer.trouble)
        keeps = is_on and not self._spools.is_home and self._spool.fullness < 1
        return Report(keeps_publishes=keeps, issues=tuple(issues), fullness=self._spool.fullness if is_on else 0.0)

    def measures(self) -> Iterable[Measure]:
        """Yield how much waits, and since when."""
        if self._spools.folder is None:
            return
        files = list(self._spools.open)
        yield ROWS, (), sum(file.rows for file in files)
        yield BYTES, (), sum(file.data_bytes for file in files)
        if oldest := [file.oldest_at for file in files if file.oldest_at is not None and file.rows]:
            yield OLDEST, (), min(oldest).timestamp()
        yield from self._drainer.measures()


SPOOL = Entry(SpoolPart)
