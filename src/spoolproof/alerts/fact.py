"""What a rule looks at: one number for each set of labels, from the metrics that the parts count anyway.

A process reads its own share of a fact as `Parts`, which travel; whoever judges joins the shares of all processes and
makes the number of them. The same declaration is written as PromQL, so that Prometheus comes to the same number.

Must never be here: a count of our own. A metric is named, not imported: alerts know no feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spoolproof.telemetry.metrics import METRICS, PREFIX, Kind, Labels, Sample

Parts = tuple[float, ...]
Shares = Mapping[Labels, Parts]
"""A process's share of a fact, by the values of the labels it is told by."""

_JOINS: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}
_POINT_SECONDS = 10.0
_KEPT_SECONDS = 930.0  #: a little more than the longest window of a rule


class History:
    """The samples of now, and those of the windowed metrics of the last quarter of an hour. What a process has not
    counted yet it has counted 0 times."""

    def __init__(self, windowed: Collection[str]) -> None:
        self._windowed = frozenset(windowed)
        self._points: deque[tuple[float, dict[tuple[str, Labels], Parts]]] = deque()
        self._now: dict[str, list[Sample]] = {}
        self.at = 0.0

    def take(self, samples: Iterable[Sample], at: float) -> None:
        """Take in what is measured now; at: monotonic seconds."""
        self.at = at
        self._now = {}
        for sample in samples:
            self._now.setdefault(sample.metric.name, []).append(sample)
        if not self._points or at - self._points[-1][0] >= _POINT_SECONDS:
            point = {(name, one.labels): _counts(one) for name in self._windowed for one in self._now.get(name, ())}
            self._points.append((at, point))
        while self._points and at - self._points[0][0] > _KEPT_SECONDS:
            self._points.popleft()

    def level(self, metric: str) -> Sequence[Sample]:
        """Return the values of a metric now."""
        return self._now.get(metric, ())

    def rise(self, metric: str, seconds: float) -> Iterable[tuple[Sample, Parts]]:
        """Yield what each counter has gained in the last so many seconds; of a histogram each bucket."""
        before = next((point for at, point in self._points if self.at - at <= seconds), {})
        for one in self.level(metric):
            counts = _counts(one)
            start = before.get((metric, one.labels), (0.0,) * len(counts))
            yield one, tuple(max(0.0, now - then) for now, then in zip(counts, start, strict=True))


def _counts(sample: Sample) -> Parts:
    return sample.buckets if sample.metric.kind is Kind.HISTOGRAM else (sample.value,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact(ABC):
    """metric: its name. by: the labels that the alert has. where: the values of a label that count; with `!` before it
    those that do not. renamed: what the one label of `by` is called in the alert. seconds: of the window, where there
    is one. of: how the shares of the processes are joined."""

    metric: str
    by: Labels = ()
    where: Mapping[str, Collection[str]] = field(default_factory=dict)
    renamed: str = ""
    seconds: float = 0.0
    of: str = "sum"

    @abstractmethod
    def read(self, history: History) -> Shares:
        """Return this process's share."""

    @abstractmethod
    def promql(self) -> str:
        """Return the number for Prometheus."""

    def value(self, parts: Parts, now: float) -> float | None:
        """Return the number that joined parts make; None: too little is known. now: Unix time."""
        return parts[0]

    def join(self, shares: Sequence[Parts]) -> Parts:
        """Return the parts of all processes as one."""
        how = _JOINS[self.of]
        return tuple(how(column) for column in zip(*shares, strict=True))

    @property
    def labels(self) -> Labels:
        """What the labels are called in the alert."""
        return (self.renamed,) if self.renamed else self.by

    def _grouped(self, found: Iterable[tuple[Sample, Parts]]) -> dict[Labels, Parts]:
        groups: dict[Labels, Parts] = {}
        for sample, parts in found:
            labels = dict(zip(sample.metric.labels, sample.labels, strict=True))
            if not all((labels[name.lstrip("!")] in values) != name.startswith("!") for name, values in self._where()):
                continue
            key = tuple(labels[name] for name in self.by)
            known = groups.get(key)
            groups[key] = parts if known is None else tuple(map(sum, zip(known, parts, strict=True)))
        return groups

    def _where(self) -> Iterable[tuple[str, Collection[str]]]:
        return self.where.items()

    def _selector(self, suffix: str = "", where: Mapping[str, Collection[str]] | None = None) -> str:
        chosen = self.where if where is None else where
        tests = [
            f'{name.lstrip("!")}{"!~" if name.startswith("!") else "=~"}"{"|".join(sorted(values))}"'
            for name, values in chosen.items()
        ]
        return f"{PREFIX}{self.metric}{suffix}" + (f"{{{','.join(tests)}}}" if tests else "")

    def _over(self, how: str, expression: str, *more: str) -> str:
        by = ", ".join(("job", *self.by, *more))
        text = f"{how} by ({by}) ({expression})"
        return f'label_replace({text}, "{self.renamed}", "$1", "{self.by[0]}", "(.*)")' if self.renamed else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Level(Fact):
    """What a gauge says now, added up within a process; of several processes the highest counts, or the lowest."""

    of: str = "max"

    def read(self, history: History) -> Shares:
        """Return the sum over the labels that the alert has not."""
        return self._grouped((one, (one.value,)) for one in history.level(self.metric))

    def promql(self) -> str:
        """Return the gauge, joined the same way."""
        inner = f"sum by ({', '.join(('job', 'instance', *self.by))}) ({self._selector()})"
        return self._over(self.of, inner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Age(Fact):
    """For how long a moment that a gauge names has been over, in seconds. Of several the earliest, or the latest."""

    of: str = "min"

    def read(self, history: History) -> Shares:
        """Return the moment."""
        groups: dict[Labels, Parts] = {}
        for sample in history.level(self.metric):
            labels = dict(zip(sample.metric.labels, sample.labels, strict=True))
            key = tuple(labels[name] for name in self.by)
            groups[key] = self.join([groups.get(key, (sample.value,)), (sample.value,)])
        return groups

    def value(self, parts: Parts, now: float) -> float | None:
        """Return how long ago it is."""
        return max(0.0, now - parts[0])

    def promql(self) -> str:
        """Return the same."""
        return f"time() - {self._over(self.of, self._selector())}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise(Fact):
    """By how much a counter has risen in a time, in all processes together."""

    def read(self, history: History) -> Shares:
        """Return what this process has counted."""
        return self._grouped(history.rise(self.metric, self.seconds))

    def promql(self) -> str:
        """Return the same."""
        return self._over("sum", f"increase({self._selector()}[{self.seconds:.0f}s])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(Fact):
    """Of what a counter has counted in a time, the part where `where` holds; nothing unless there were `at_least`.
    whole: the counter of all of it, where it is another one; `of_whole`: which of that counts."""

    at_least: float
    whole: str = ""
    of_whole: Mapping[str, Collection[str]] = field(default_factory=dict)

    def read(self, history: History) -> Shares:
        """Return how many, and of how many."""
        some = Rise(metric=self.metric, by=self.by, where=self.where, seconds=self.seconds).read(history)
        all_ = self._all().read(history)
        return {key: (*some.get(key, (0.0,)), *count) for key, count in all_.items()}

    def value(self, parts: Parts, now: float) -> float | None:
        """Return the ratio."""
        return parts[0] / parts[1] if parts[1] >= self.at_least else None

    def promql(self) -> str:
        """Return the same."""
        some, all_ = Rise(metric=self.metric, by=self.by, where=self.where, seconds=self.seconds), self._all()
        return f"{some.promql()} / ({all_.promql()} >= {self.at_least:g})"

    def _all(self) -> Rise:
        return Rise(metric=self.whole or self.metric, by=self.by, where=self.of_whole, seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile(Fact):
    """What a share of the values of a histogram stayed below, in seconds; within a bucket they are spread evenly."""

    share: float

    def read(self, history: History) -> Shares:
        """Return how many were in each bucket."""
        return self._grouped(history.rise(self.metric, self.seconds))

    def value(self, parts: Parts, now: float) -> float | None:
        """Return the bound; None if nothing was measured."""
        bounds = METRICS[self.metric].buckets
        wanted = sum(parts) * self.share
        if not wanted:
            return None
        low = 0.0
        for bound, count in zip(bounds, parts, strict=False):
            if wanted <= count:
                return low + (bound - low) * wanted / count
            wanted, low = wanted - count, bound
        return low

    def promql(self) -> str:
        """Return the same."""
        rate = f"rate({self._selector('_bucket')}[{self.seconds:.0f}s])"
        return f"histogram_quantile({self.share:g}, {self._over('sum', rate, 'le')})"
