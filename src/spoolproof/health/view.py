"""What each process tells of itself in the store, for whoever looks at all of them: its health, and what it measures.

Breakers, caches, bulkheads and queues are known to their own process alone; its metrics say what of that is worth a
look. Every 10 s they are kept as one row of the state table, which a dashboard reads; a process that ends takes its
row away, and one that died is told by the process table. Nothing here is asked by another process before it acts.

Must never be here: a payload, a key, an error's text that health does not show to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.health.snapshot import Snapshot
from spoolproof.health.verdict import issues_of, system_of, unready_reason
from spoolproof.lifecycle.loop import Loop
from spoolproof.ports.state import VIEW, State
from spoolproof.telemetry.metrics import METER, METRICS, Kind, Sample

VIEW_SECONDS = 10.0
"""How often a process tells the others: a row of the state table each time."""
ISSUES_MAX = 50
Values = tuple[tuple[tuple[str, ...], float], ...]


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one moment. system: healthy, degraded or unhealthy. values: of every metric that has some, by its
    name, each with its labels. is_cut: there were too many, and the longest are missing."""

    service: str
    at: datetime
    started_at: datetime
    version: str
    system: str
    unready: str = ""
    dependencies: Mapping[str, Mapping[str, str]] = {}
    issues: tuple[str, ...] = ()
    values: Mapping[str, Values] = {}
    is_cut: bool = False

    def of(self, metric: str) -> Values:
        """Return the values of a metric; perhaps none."""
        return self.values.get(metric, ())

    def sum(self, metric: str, **labels: str) -> float:
        """Return the sum of a metric's values that have these labels."""
        names = METRICS[metric].labels if metric in METRICS else ()
        wanted = {names.index(name): value for name, value in labels.items() if name in names}
        return sum(
            value for found, value in self.of(metric) if all(found[place] == one for place, one in wanted.items())
        )


def view_of(snapshot: Snapshot, started_at: datetime, samples: Iterable[Sample]) -> ProcessView:
    """Return what a process tells of itself."""
    values: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for sample in samples:
        if sample.metric.kind is not Kind.HISTOGRAM and (sample.value or sample.metric.kind is Kind.GAUGE):
            values.setdefault(sample.metric.name, []).append((sample.labels, sample.value))
    return ProcessView(
        service=snapshot.service,
        at=snapshot.at,
        started_at=started_at,
        version=snapshot.version,
        system=system_of(snapshot).value,
        unready=unready_reason(snapshot) or "",
        dependencies={
            one.key: {
                "state": str(one.status),
                "need": str(one.need),
                "since": one.since.isoformat(),
                "error": one.reason or one.error or "",
            }
            for one in snapshot.dependencies
        },
        issues=tuple(issue.text for issue in issues_of(snapshot))[:ISSUES_MAX],
        values={name: tuple(found) for name, found in values.items()},
    )


def packed(view: ProcessView) -> bytes:
    """Return a view as a row of the state table takes it: without the metrics of most values, if it were too large."""
    data = msgspec.json.encode(view)
    while len(data) > limits.STATE_BYTES_MAX and view.values:
        longest = max(view.values, key=lambda name: len(msgspec.json.encode(view.values[name])))
        rest = {name: found for name, found in view.values.items() if name != longest}
        view = msgspec.structs.replace(view, values=rest, is_cut=True)
        data = msgspec.json.encode(view)
    return data


async def read_views(state: State) -> Mapping[str, ProcessView]:
    """Return what every process told last, by its id; what cannot be read is left out. Raises StoreUnavailable."""
    found: dict[str, ProcessView] = {}
    for name, record in (await state.all(VIEW)).items():
        try:
            found[name] = msgspec.json.decode(record.value, type=ProcessView)
        except msgspec.MsgspecError:  # another release's
            continue
    return found


class Views(Loop):
    """The loop that keeps this process's view, every 10 s."""

    name = "view"

    def __init__(self, state: State, make: Callable[[], Any], process_id: Callable[[], Any], *, clock: Clock) -> None:
        """make: returns the view as it is now. process_id: under which it is kept."""
        self._state = state
        self._make = make
        self._process_id = process_id
        self._clock = clock
        self._kept = ""

    async def run_once(self) -> int:
        """Keep what is true now, then rest. Raises StoreUnavailable."""
        name = str(self._process_id())
        if self._kept not in ("", name):  # it had to start over under a new id
            await self._state.remove(VIEW, self._kept)
        await self._state.put(VIEW, name, packed(self._make()))
        self._kept = name
        await self._clock.sleep(VIEW_SECONDS)
        return 1

    async def drain(self) -> None:
        """Take the row away."""
        if self._kept:
            await self._state.remove(VIEW, self._kept)


def samples_now() -> Sequence[Sample]:
    """Return what this process measures."""
    return list(METER.samples())
