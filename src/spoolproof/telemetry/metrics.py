"""What is measured: metrics declared once, counts kept in memory, everything read when somebody asks.

A metric exists because it was declared; a count under another name, or with other labels, cannot be made. Counting is
an addition to a dict: no lock, no I/O, no listener. What a machine counts anyway (a breaker's state, a window's size)
is not counted again: its owner registers a source, which is read at each scrape.

Label values are bounded: after 100 different ones of one metric and label the rest is counted as `other`, and
`metric_labels_dropped_total` says so. Never a label: a message id, a key, a tenant, a URL, the text of an error.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from spoolproof.errors import InvariantViolated

PREFIX = "spoolproof_"
LABEL_VALUES_MAX = 100
OTHER = "other"
_READS = 5
LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets of everything that lasts as long as a call: from a local disk's answer to the longest handler."""

Labels = tuple[str, ...]


class Kind(StrEnum):
    """counter: only rises; gauge: as it is now; histogram: how long things took."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. name: without prefix, unit last, counters end in `_total`. buckets: upper bounds in seconds."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = LATENCY_SECONDS


@dataclass(frozen=True, slots=True)
class Sample:
    """One value at a scrape. buckets: for a histogram, count up to and including each bound, not cumulated."""

    metric: Metric
    labels: Labels
    value: float
    buckets: tuple[int, ...] = ()


METRICS: dict[str, Metric] = {}
"""Every metric there is, by name."""


def declare(
    name: str, kind: Kind, help: str, labels: Labels = (), buckets: tuple[float, ...] = LATENCY_SECONDS
) -> Metric:
    """Declare a metric at import. Raises InvariantViolated for a name that is taken or against the rules."""
    if name in METRICS:
        raise InvariantViolated(f"metric {name!r} is declared twice")
    if (kind is Kind.COUNTER) is not name.endswith("_total") or not name.replace("_", "").isalnum():
        raise InvariantViolated(f"metric {name!r}: counters and only counters end in _total")
    METRICS[name] = metric = Metric(name, kind, help, labels, buckets)
    return metric


def counter(name: str, help: str, *labels: str) -> Metric:
    """Declare a counter."""
    return declare(name, Kind.COUNTER, help, labels)


def gauge(name: str, help: str, *labels: str) -> Metric:
    """Declare a gauge."""
    return declare(name, Kind.GAUGE, help, labels)


def histogram(name: str, help: str, *labels: str) -> Metric:
    """Declare a histogram of seconds."""
    return declare(name, Kind.HISTOGRAM, help, labels)


LABELS_DROPPED = counter("metric_labels_dropped_total", "Values counted as `other`, by metric.", "metric")

Measure = tuple[Metric, Labels, float]
"""One value as its owner tells it."""
Source = Callable[[], Iterable[Measure]]


class Meter:
    """Counts of one process, and the sources it reads. Not thread-safe per count: each is added to in one thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Metric, Labels], float] = {}
        self._spreads: dict[tuple[Metric, Labels], Spread] = {}
        self._sources: list[Source] = []
        self._values: dict[tuple[str, int], set[str]] = {}

    def add(self, metric: Metric, labels: Labels = (), count: float = 1) -> None:
        """Add to a counter."""
        key = (metric, labels)
        if key not in self._counts:
            key = (metric, self._bounded(metric, labels))
        self._counts[key] = self._counts.get(key, 0) + count

    def spread(self, metric: Metric, *labels: str) -> Spread:
        """Return what to `observe` seconds with; keep it, so that a hot path pays for no lookup."""
        key = (metric, self._bounded(metric, labels))
        return self._spreads.setdefault(key, Spread(metric.buckets))

    def source(self, source: Source) -> Callable[[], None]:
        """Read this at each scrape; returns what ends that. A source that raises is left out."""
        self._sources.append(source)
        return lambda: self._sources.remove(source) if source in self._sources else None

    def samples(self) -> Iterator[Sample]:
        """Yield every value, equal metrics beside each other, counters that were never added to as 0."""
        found: dict[Metric, list[Sample]] = {METRICS[name]: [] for name in sorted(METRICS)}
        for (metric, labels), value in list(self._counts.items()):
            found.setdefault(metric, []).append(Sample(metric, labels, value))
        for (metric, labels), spread in list(self._spreads.items()):
            found.setdefault(metric, []).append(Sample(metric, labels, spread.total, tuple(spread.counts)))
        for (metric, labels), value in self._read().items():
            found.setdefault(metric, []).append(Sample(metric, labels, value))
        for metric, samples in found.items():
            if not samples and not metric.labels and metric.kind is Kind.COUNTER:
                samples = [Sample(metric, (), 0)]
            yield from samples

    def _read(self) -> Mapping[tuple[Metric, Labels], float]:
        values: dict[tuple[Metric, Labels], float] = {}
        for source in list(self._sources):
            for metric, labels, value in _settled(source):
                key = (metric, self._bounded(metric, labels))
                # two services of one process, or what is counted as other: counters add up, the last gauge counts
                values[key] = values.get(key, 0) + value if metric.kind is Kind.COUNTER else value
        return values

    def _bounded(self, metric: Metric, labels: Labels) -> Labels:
        if len(labels) != len(metric.labels):
            raise InvariantViolated(f"metric {metric.name!r} has the labels {metric.labels}, not {labels}")
        bounded = []
        for index, value in enumerate(labels):
            known = self._values.setdefault((metric.name, index), set())
            if value not in known and len(known) >= LABEL_VALUES_MAX:
                key = (LABELS_DROPPED, (metric.name,))
                self._counts[key] = self._counts.get(key, 0) + 1
                value = OTHER
            known.add(value)
            bounded.append(value)
        return tuple(bounded)


def _settled(source: Source) -> list[Measure]:
    """Return all that a source tells, or nothing. It is read in another thread than its counts are made in."""
    for _ in range(_READS):
        try:
            return list(source())
        except RuntimeError:  # what it walked through has changed: look again
            continue
        except Exception:  # telemetry never breaks what it watches; a gauge that is missing is seen
            break
    return []


class Spread:
    """Seconds, counted by bucket. pending: those a hot path has only noted; it has them counted now and then, in the
    thread in which it notes them."""

    __slots__ = ("_bounds", "counts", "pending", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.pending: list[float] = []
        self.total = 0.0

    def settle(self) -> None:
        """Count what is pending, all at once: a fraction of what one by one costs."""
        values, self.pending = sorted(self.pending), []
        before = 0
        for index, bound in enumerate(self._bounds):
            upto = bisect_right(values, bound)
            self.counts[index] += upto - before
            before = upto
        self.counts[-1] += len(values) - before
        self.total += max(0.0, sum(values))  # a clock of somebody else's may be ahead

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds


METER = Meter()
"""This process's. One process has one port for metrics, whatever runs in it."""


class Spreads(dict[str, Spread]):
    """The spreads of a histogram with one label, by its value."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, label: str) -> Spread:
        found = self[label] = METER.spread(self._metric, label)
        return found
