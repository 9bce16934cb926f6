"""The same numbers for OpenTelemetry, read by its SDK."""

from __future__ import annotations

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from spoolproof.telemetry import opentelemetry
from spoolproof.telemetry.metrics import METRICS, Kind, Meter, Metric
from spoolproof.telemetry.opentelemetry import Instruments
from spoolproof.testing.clock import ManualClock

COUNTER = Metric("things_total", Kind.COUNTER, "Things.", ("queue",))
GAUGE = Metric("size", Kind.GAUGE, "How large.")
HISTOGRAM = Metric("took_seconds", Kind.HISTOGRAM, "How long.", ("queue",), (0.1, 1.0))


async def test_what_the_sdk_collects_is_what_the_meter_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One account of what happened, whoever reads it."""
    monkeypatch.setattr(opentelemetry, "METRICS", {one.name: one for one in (COUNTER, GAUGE, HISTOGRAM)})
    for one in (COUNTER, GAUGE, HISTOGRAM):
        monkeypatch.setitem(METRICS, one.name, one)
    reader, clock, meter = InMemoryMetricReader(), ManualClock(), Meter()
    provider = MeterProvider([reader])
    monkeypatch.setattr(api, "get_meter", provider.get_meter)
    kept = Instruments(clock, meter)
    meter.add(COUNTER, ("a",), 2)
    meter.source(lambda: [(GAUGE, (), 12)])
    meter.spread(HISTOGRAM, "a").observe(0.5)

    first = collected(reader)
    meter.add(COUNTER, ("a",))
    await clock.advance(1)
    second = collected(reader)
    provider.shutdown()

    assert kept._samples
    assert 2 == first["spoolproof_things_total", "a", ""]
    assert 3 == second["spoolproof_things_total", "a", ""]
    assert 12 == first["spoolproof_size", "", ""]
    assert [0, 1, 1] == [first["spoolproof_took_seconds_bucket", "a", le] for le in ("0.1", "1.0", "+Inf")]
    assert (1, 0.5) == (first["spoolproof_took_seconds_count", "a", ""], first["spoolproof_took_seconds_sum", "a", ""])


def collected(reader: InMemoryMetricReader) -> dict[tuple[str, str, str], float]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        (metric.name, str((point.attributes or {}).get("queue", "")), str((point.attributes or {}).get("le", ""))): (
            point.value  # type: ignore[union-attr]
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
