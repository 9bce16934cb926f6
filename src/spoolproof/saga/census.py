"""How the sagas of a service stand as a whole, counted every 30 s by the one process that leads.

What needs somebody is said here: sagas that ask, that are due and that nobody takes up, and those that no live process
has the code of. Another release may have it, so nothing is said of code before a saga has been due in vain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.ports.sagas import Begun, Count, Sagas, SagaState
from spoolproof.saga.definition import Definitions
from spoolproof.saga.events import LATE, OLDEST, SAGAS, STRANDED
from spoolproof.telemetry.metrics import Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """Sagas that a deploy would leave without code. step: the one it does not know; None: all of that version."""

    name: str
    version: int
    sagas: int
    step: str | None

    def __str__(self) -> str:
        if self.step is None:
            return f"{self.sagas} of {self.name} version {self.version}: the code has no such version; keep it"
        return (
            f"{self.sagas} of {self.name} version {self.version} have begun step {self.step!r}, which the code does "
            f"not know; if it was renamed: aliases=[{self.step!r}], if it is gone: retired({self.step!r}, compensate=…)"
        )


def stranded(counts: Sequence[Count], begun: Sequence[Begun], definitions: Definitions) -> list[Stranded]:
    """Return what of the sagas that are not over this code could not go on with, or not undo."""
    live: Counter[tuple[str, int]] = Counter()
    for count in counts:
        live[count.name, count.version] += count.sagas if count.state is not SagaState.EXPECTED else 0
    missing = {place: n for place, n in live.items() if n and place not in definitions.sagas}
    found = [Stranded(name=name, version=of, sagas=n, step=None) for (name, of), n in sorted(missing.items())]
    for one in begun:
        definition = definitions.sagas.get((one.name, one.version))
        if definition is not None and definition.find(one.step) is None:
            found.append(Stranded(name=one.name, version=one.version, sagas=one.sagas, step=one.step))
    return found


class Census:
    """The counts of one service as of the last look; empty in a process that does not lead."""

    def __init__(self, service: str, sagas: Sagas, definitions: Definitions, clock: Clock) -> None:
        self._service = service
        self._sagas = sagas
        self._definitions = definitions
        self._clock = clock
        self._look_at = 0.0
        self._strange_since: dict[tuple[str, int], float] = {}
        self.counts: Sequence[Count] = ()

    async def look(self, *, leads: bool) -> None:
        """Count, if it is time. Raises StoreUnavailable."""
        now = self._clock.monotonic()
        if not leads:
            self.counts, self._look_at = (), 0.0
        elif now >= self._look_at:
            self._look_at = now + limits.SAGA_COUNT_SECONDS
            self.counts = await self._sagas.counts(self._service)
            strange = {(one.name, one.version) for one in self.counts if one.strange}
            self._strange_since = {place: self._strange_since.get(place, now) for place in strange}

    def issues(self) -> Iterator[str]:
        """Yield what health tells."""
        asked: Counter[str] = Counter()
        for one in self.counts:
            asked[one.name] += one.sagas if one.state is SagaState.IN_REVIEW else 0
            which = f"{one.name} version {one.version} ({one.state.value})"
            is_known = (one.name, one.version) in self._definitions.sagas
            if is_known and one.late_seconds > limits.SAGA_LATE_SECONDS:
                yield f"sagas: some of {which} are due for {one.late_seconds:.0f} s, and nobody takes them up"
            if not is_known and one.late_seconds > limits.SAGA_STRANDED_SECONDS:
                yield f"sagas: {one.sagas} of {which} are stranded: no process has that version; deploy its code again"
        now = self._clock.monotonic()
        for (name, version), since in self._strange_since.items():
            if now - since > limits.SAGA_STRANDED_SECONDS:
                yield (
                    f"sagas: some of {name} version {version} are stranded: they have steps that no process knows; "
                    "spoolproof saga check-deploy MODULE:SERVICE"
                )
        for name, number in asked.items():
            if number:
                yield f"sagas: {number} of {name} stand in review; spoolproof saga ls --state in_review"

    def measures(self) -> Iterator[Measure]:
        """Yield the gauges."""
        sagas: Counter[tuple[str, str]] = Counter()
        stranded: Counter[tuple[str, str]] = Counter()
        oldest: dict[tuple[str, str], float] = {}
        late: dict[str, float] = {}
        for one in self.counts:
            place = one.name, one.state.value
            sagas[place] += one.sagas
            if one.oldest_at is not None:
                oldest[place] = min(one.oldest_at.timestamp(), oldest.get(place, float("inf")))
            late[one.name] = max(one.late_seconds, late.get(one.name, 0.0))
            is_missing = (one.name, one.version) not in self._definitions.sagas and one.late_seconds > 0
            stranded[one.name, str(one.version)] += one.sagas if is_missing else one.strange
        yield from ((SAGAS, place, number) for place, number in sagas.items())
        yield from ((OLDEST, place, at) for place, at in oldest.items())
        yield from ((LATE, (name,), seconds) for name, seconds in late.items())
        yield from ((STRANDED, place, number) for place, number in stranded.items())
