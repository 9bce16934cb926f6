"""The metrics for OpenTelemetry: observable instruments of its API, under the same names, read from the meter.

Without its API nothing happens here; without an SDK its instruments are never read. A histogram is three counters, as
in Prometheus: the API has no way to hand over buckets that are counted already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from spoolproof.clock import Clock
from spoolproof.telemetry.metrics import METER, METRICS, PREFIX, Kind, Meter, Metric, Sample

_FRESH_SECONDS = 0.5  #: a collection asks each instrument; the meter is read once for all of them

Value = tuple[str, float, dict[str, str]]
"""What a series is called after the metric's name, its value, and its attributes."""


class Instruments:
    """One for each metric there is when they are made."""

    def __init__(self, clock: Clock, meter: Meter = METER) -> None:
        """Raises ImportError without the API."""
        from opentelemetry import metrics as api

        self._clock = clock
        self._meter = meter
        self._samples: list[Sample] = []
        self._read_at: float | None = None
        self._observation = api.Observation
        made = api.get_meter("spoolproof")
        for metric in METRICS.values():
            for suffix in ("_bucket", "_count", "_sum") if metric.kind is Kind.HISTOGRAM else ("",):
                make: Any = (
                    made.create_observable_gauge if metric.kind is Kind.GAUGE else made.create_observable_counter
                )
                make(PREFIX + metric.name + suffix, [self._callback(metric, suffix)], description=metric.help)

    def _callback(self, metric: Metric, suffix: str) -> Callable[[Any], Iterable[Any]]:
        def observe(_options: Any) -> Iterable[Any]:
            return [
                self._observation(value, attributes)
                for sample in self._fresh()
                if sample.metric is metric
                for name, value, attributes in _values(sample)
                if name == suffix
            ]

        return observe

    def _fresh(self) -> list[Sample]:
        now = self._clock.monotonic()
        if self._read_at is None or now - self._read_at >= _FRESH_SECONDS:
            self._samples, self._read_at = list(self._meter.samples()), now
        return self._samples


def _values(sample: Sample) -> Iterator[Value]:
    labels = dict(zip(sample.metric.labels, sample.labels, strict=True))
    if sample.metric.kind is not Kind.HISTOGRAM:
        yield "", sample.value, labels
        return
    bounds = [*(str(bound) for bound in sample.metric.buckets), "+Inf"]
    yield from (
        ("_bucket", upto, {**labels, "le": le}) for le, upto in zip(bounds, accumulate(sample.buckets), strict=True)
    )
    yield "_count", sum(sample.buckets), labels
    yield "_sum", sample.value, labels


_made: list[Instruments] = []


def offer_to_opentelemetry(clock: Clock) -> None:
    """Make the instruments once in a process, if the API is installed. Never raises."""
    if not _made:
        try:
            _made.append(Instruments(clock))
        except Exception:  # not installed, or of a release that has other names: nobody waits for it
            return
