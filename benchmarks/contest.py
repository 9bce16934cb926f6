"""What a benchmark is, and how its contenders take turns."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.stage import Stage

Sample = dict[str, float]
"""Figures of one round, by metric."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the ratio ours ÷ peer (or, without a peer, our figure) must be: at least or at most `bound`."""

    bound: float
    is_least: bool = True

    def is_met(self, value: float) -> bool:
        """Tell whether a figure is on the right side."""
        return value >= self.bound if self.is_least else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One line of the table: our contender against a peer by one metric. peer: None for a figure of ours alone."""

    ours: str
    peer: str | None
    label: str
    metric: str
    unit: str
    target: Target | None = None
    aim: Target | None = None  #: the design's final target, where `target` is the one due now


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """contenders: key → what it is; one without samples could not run. switches: every durability switch and setting
    that matters, name → value."""

    id: str
    title: str
    contenders: dict[str, str]
    measure: Callable[[Stage, str], Sample] | None = None
    measure_together: Callable[[Stage, int], dict[str, list[Sample]]] | None = None
    """In place of `measure`: all rounds of all contenders, interleaved; judged by the median of the rounds' ratios."""
    comparisons: Sequence[Comparison]
    switches: dict[str, str]
    notes: Sequence[str] = ()
    rounds_max: int | None = None
    """Fewer rounds than asked, for what takes minutes each and does not vary."""


@dataclass(slots=True)
class Result:
    """Samples of every contender, in the order they were taken."""

    benchmark: Benchmark
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def figures(self, contender: str, metric: str) -> list[float]:
        """Return one metric of every round."""
        return [sample[metric] for sample in self.samples[contender]]

    def median(self, contender: str, metric: str) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.figures(contender, metric))

    def ratio(self, ours: str, peer: str, metric: str) -> float:
        """Return ours ÷ peer: of the medians, or the median over rounds in which both ran side by side."""
        if self.benchmark.measure_together is None:
            return self.median(ours, metric) / self.median(peer, metric)
        pairs = zip(self.figures(ours, metric), self.figures(peer, metric), strict=True)
        return statistics.median(one / other for one, other in pairs)


def hold(benchmark: Benchmark, stage: Stage, rounds: int) -> Result:
    """Let the contenders take turns for so many rounds."""
    result = Result(benchmark, {key: [] for key in benchmark.contenders})
    rounds = min(rounds, benchmark.rounds_max or rounds)
    if benchmark.measure_together is not None:
        print(f"{benchmark.id}: {rounds} rounds, contenders side by side", file=sys.stderr, flush=True)
        result.samples.update(benchmark.measure_together(stage, rounds))
        return result
    assert benchmark.measure is not None
    for number in range(1, rounds + 1):
        for key in benchmark.contenders:
            sample = benchmark.measure(stage, key)
            result.samples[key].append(sample)
            shown = "  ".join(f"{metric}={value:,.4g}" for metric, value in sample.items())
            print(f"{benchmark.id} round {number}/{rounds}  {key:<28} {shown}", file=sys.stderr, flush=True)
    return result
