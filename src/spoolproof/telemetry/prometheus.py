"""The metrics as Prometheus reads them, made by `prometheus-client` from what the meter holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, groupby
from typing import Any

from spoolproof.errors import MissingExtra
from spoolproof.telemetry.metrics import METER, PREFIX, Kind, Meter, Metric, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(meter: Meter = METER) -> bytes:
    """Return every metric in Prometheus' text format. Raises MissingExtra without prometheus-client."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as error:
        raise MissingExtra("prometheus-client", "metrics") from error
    registry = CollectorRegistry()
    registry.register(_Collector(meter))
    text: bytes = generate_latest(registry)
    return text


class _Collector:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Any]:
        for metric, samples in groupby(self._meter.samples(), key=lambda sample: sample.metric):
            yield _family(metric, list(samples))

    def describe(self) -> list[Any]:
        return []  # else registering collects once, to look for names that are taken


def _family(metric: Metric, samples: list[Sample]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    name = PREFIX + metric.name
    if metric.kind is Kind.HISTOGRAM:
        family: Any = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        bounds = [*(str(bound) for bound in metric.buckets), "+Inf"]
        for sample in samples:
            counts = list(zip(bounds, accumulate(sample.buckets), strict=True))
            family.add_metric(sample.labels, counts, sample.value)
        return family
    made = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = made(name, metric.help, labels=metric.labels)
    for sample in samples:
        family.add_metric(sample.labels, sample.value)
    return family
