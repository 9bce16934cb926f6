"""What is counted, what is refused, and what a scrape shows."""

from __future__ import annotations

import pytest

from spoolproof.errors import InvariantViolated
from spoolproof.health.endpoint import Request, respond
from spoolproof.health.snapshot import Snapshot
from spoolproof.telemetry import metrics
from spoolproof.telemetry.metrics import LABEL_VALUES_MAX, LABELS_DROPPED, METER, METRICS, Kind, Meter, Metric, Spread
from spoolproof.telemetry.prometheus import exposition
from spoolproof.testing.clock import ManualClock

COUNTER = Metric("things_total", Kind.COUNTER, "Things.", ("queue",))
GAUGE = Metric("size", Kind.GAUGE, "How large.")
HISTOGRAM = Metric("took_seconds", Kind.HISTOGRAM, "How long.", ("queue",), (0.1, 1.0))


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics of this file exist for as long as it runs."""
    for metric in (COUNTER, GAUGE, HISTOGRAM):
        monkeypatch.setitem(METRICS, metric.name, metric)


def lines(meter: Meter) -> list[str]:
    """Return the samples of this file's metrics as Prometheus reads them."""
    names = ("spoolproof_things_total", "spoolproof_size", "spoolproof_took_seconds", "spoolproof_metric_labels")
    return [line for line in exposition(meter).decode().splitlines() if line.startswith(names)]


def test_counters_gauges_and_histograms_are_read_at_a_scrape() -> None:
    """The text format's own rules (cumulated buckets, a count and a sum) are the library's; the values are ours."""
    meter = Meter()
    meter.add(COUNTER, ("a",))
    meter.add(COUNTER, ("a",), 2)
    meter.spread(HISTOGRAM, "a").observe(0.5)
    meter.spread(HISTOGRAM, "a").observe(7.0)
    meter.source(lambda: [(GAUGE, (), 12)])

    shown = lines(meter)

    assert 'spoolproof_things_total{queue="a"} 3.0' in shown
    assert "spoolproof_size 12.0" in shown
    assert 'spoolproof_took_seconds_bucket{le="0.1",queue="a"} 0.0' in shown
    assert 'spoolproof_took_seconds_bucket{le="1.0",queue="a"} 1.0' in shown
    assert 'spoolproof_took_seconds_bucket{le="+Inf",queue="a"} 2.0' in shown
    assert 'spoolproof_took_seconds_sum{queue="a"} 7.5' in shown


def test_what_is_pending_is_counted_as_if_it_came_one_by_one() -> None:
    """A hot path notes seconds and has them counted later: the same counts, for a fraction of the time."""
    at_once, one_by_one = Spread((0.1, 1.0)), Spread((0.1, 1.0))
    seconds = [0.1, 0.05, 3.0, 0.1000001, 1.0, 7.0]
    for one in seconds:
        one_by_one.observe(one)
        at_once.pending.append(one)

    at_once.settle()

    assert [] == at_once.pending
    assert (one_by_one.counts, one_by_one.total) == (at_once.counts, pytest.approx(at_once.total))


def test_the_hundred_and_first_value_of_a_label_is_counted_as_other() -> None:
    """A label that follows what strangers send would fill the memory of whoever scrapes."""
    meter = Meter()
    for number in range(LABEL_VALUES_MAX + 5):
        meter.add(COUNTER, (f"queue-{number}",))

    shown = lines(meter)

    assert 'spoolproof_things_total{queue="other"} 5.0' in shown
    assert 'spoolproof_metric_labels_dropped_total{metric="things_total"} 5.0' in shown
    assert LABEL_VALUES_MAX + 1 == sum(line.startswith("spoolproof_things_total{") for line in shown)


def test_a_count_with_other_labels_than_declared_is_refused() -> None:
    """A series nobody declared is a series nobody can find."""
    with pytest.raises(InvariantViolated, match="queue"):
        Meter().add(COUNTER)


@pytest.mark.parametrize(("name", "kind"), [("a", Kind.COUNTER), ("a_total", Kind.GAUGE), ("a b", Kind.GAUGE)])
def test_a_name_against_the_rules_is_refused(name: str, kind: Kind) -> None:
    """`_total` says what may be differentiated; Prometheus' own tools rely on it."""
    with pytest.raises(InvariantViolated):
        metrics.declare(name, kind, "Help.")


def test_a_name_is_declared_once() -> None:
    """Two parts that count under one name would add up what does not belong together."""
    with pytest.raises(InvariantViolated, match="twice"):
        metrics.counter(LABELS_DROPPED.name, "Help.")


def test_a_source_that_raises_hides_no_other() -> None:
    """Telemetry never breaks what it watches."""
    meter = Meter()

    def broken() -> list[tuple[Metric, tuple[str, ...], float]]:
        raise RuntimeError("no such thing")

    meter.source(broken)
    end = meter.source(lambda: [(GAUGE, (), 1)])
    assert "spoolproof_size 1.0" in lines(meter)

    end()
    assert not any(line.startswith("spoolproof_size") for line in lines(meter))


def test_the_health_port_serves_them() -> None:
    """One port a process: what probes it also scrapes it."""
    METER.add(COUNTER, ("probed",))
    snapshot = Snapshot(at=ManualClock().now(), service="shop", version="1")

    answer = respond(Request(method="GET", path="/metrics", client="127.0.0.1"), snapshot)

    assert 200 == answer.status
    assert ("content-type", "text/plain; version=0.0.4; charset=utf-8") in answer.headers
    assert b'spoolproof_things_total{queue="probed"} 1.0' in answer.body
