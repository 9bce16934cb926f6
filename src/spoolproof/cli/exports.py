"""Files for the monitoring of others, from what is declared: Prometheus' alert rules from the rules of ours, and a
dashboard for Grafana. What they name exists, and what they say is what the service says itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from spoolproof.alerts.rule import Rule

_FIELD = re.compile(r"\{(\w+)\}")


def rules_file(rules: Iterable[Rule]) -> str:
    """Return a file of rules for Prometheus, from 2.42 on."""
    lines = ["# Written by spoolproof export prometheus.", "groups:", "  - name: spoolproof", "    rules:"]
    for rule in rules:
        lines += [f"      - alert: {rule.name}", "        expr: |-", f"          {expression(rule)}"]
        lines += [f"        for: {rule.for_seconds:.0f}s"] if rule.for_seconds else []
        lines += [f"        keep_firing_for: {rule.keep_seconds:.0f}s"] if rule.keep_seconds else []
        lines += ["        labels:", f"          severity: {rule.severity}", "        annotations:"]
        lines += [f"          summary: {_quoted(rule.what)}"]
        lines += [f"          description: {_quoted(f'{rule.safe} {rule.remedy}')}"]
    lines += ["      - alert: Watchdog", "        expr: vector(1)", "        labels:", "          severity: none"]
    lines += ["        annotations:", "          summary: Always fires; its silence is the alarm."]
    return "\n".join(lines) + "\n"


def expression(rule: Rule) -> str:
    """Return the condition, which an alert that fires leaves at its clear line alone."""
    begins = rule.promql(rule.trigger)
    if rule.clears_at == rule.trigger:
        return begins
    on = ", ".join(("job", *rule.fact.labels))
    fires = f'ALERTS{{alertname="{rule.name}", alertstate="firing"}}'
    return f"({begins}) or (({rule.promql(rule.clears_at)}) and on ({on}) {fires})"


def _quoted(text: str) -> str:
    def field(found: re.Match[str]) -> str:
        return "{{ $value | humanize }}" if found[1] == "value" else f"{{{{ $labels.{found[1]} }}}}"

    shown = _FIELD.sub(field, text)
    return "'" + shown.replace("'", "''") + "'"


_S = '{job=~"$job", instance=~"$instance"}'


def _q(metric: str, by: str, share: str = "0.95") -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate(spoolproof_{metric}_bucket{_S}[5m])))"


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate(spoolproof_{metric}{_S}[5m]))"


def _top(metric: str, by: str = "", more: str = "") -> str:
    grouped = f"max by ({by}) " if by else "max "
    return f"{grouped}(spoolproof_{metric}{_S[:-1]}{more}}})"


def _since(metric: str, by: str = "") -> str:
    grouped = f"min by ({by}) " if by else "min "
    return f"time() - {grouped}(spoolproof_{metric}{_S})"


ROWS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Flow": (
        ("Given to the broker, by answer", _rate("relay_published_total", "outcome"), "ops"),
        ("Deliveries, by what became of them", _rate("consumer_deliveries_total", "outcome"), "ops"),
        ("End to end, p95", _q("end_to_end_seconds", "queue"), "s"),
        ("Alerts that fire", _top("alerts", "alert, severity", ', state="firing"') + " > 0", "none"),
    ),
    "Outbox and spool": (
        ("Rows in the outbox", _top("outbox_rows", "job"), "none"),
        ("Age of the oldest", _since("outbox_oldest_timestamp_seconds", "job"), "s"),
        ("Shards without a relay", _top("outbox_unowned_shards", "job"), "none"),
        ("From publish to confirm, p95", _q("relay_confirm_seconds", "job"), "s"),
        ("Events in spool files", f"sum by (instance) (spoolproof_spool_rows{_S})", "none"),
        ("Refused by a full spool", _rate("spool_refused_total", "instance"), "ops"),
    ),
    "Consumers": (
        ("Messages in queues", _top("queue_messages", "queue"), "none"),
        ("Being handled", f"sum by (consumer) (spoolproof_consumer_in_flight{_S})", "none"),
        ("Handlers, p95", _q("consumer_handler_seconds", "consumer"), "s"),
        ("Since the last ack", f"time() - max by (queue) (spoolproof_last_ack_timestamp_seconds{_S})", "s"),
        ("Copies that wait for a retry", _rate("retry_copies_total", "consumer"), "ops"),
        ("Duplicates that were skipped", _rate("inbox_duplicates_total", "consumer"), "ops"),
    ),
    "Dead letters and reviews": (
        ("Dead letters, by state", _top("dead_letters", "state"), "none"),
        ("New ones", _rate("dead_letters_total", "consumer, reason"), "ops"),
        ("Review items", _top("review_items", "kind, state"), "none"),
        ("Overdue", _top("review_overdue", "kind"), "none"),
    ),
    "Breakers and bulkheads": (
        (
            "Breakers that are not closed",
            f'sum by (policy, state) (spoolproof_breaker_state{_S[:-1]}, state!="closed"}}) > 0',
            "none",
        ),
        ("Calls, by result", _rate("policy_calls_total", "policy, result"), "ops"),
        ("Slots in use", f"sum by (policy) (spoolproof_bulkhead_running{_S})", "none"),
        ("Not let through", _rate("policy_rejected_total", "policy, by"), "ops"),
    ),
    "Cache": (
        ("Hit ratio", f"avg by (cache, level) (spoolproof_cache_hit_ratio{_S})", "percentunit"),
        ("Stale values served", _rate("cache_stale_total", "cache"), "ops"),
        ("Loads", _rate("cache_loads_total", "cache, result"), "ops"),
        ("Shared cache in use", f"min by (instance) (spoolproof_cache_shared{_S})", "none"),
    ),
    "Dependencies": (
        ("Not connected", _top("connection_state", "dependency, state", ', state!="connected"') + " > 0", "none"),
        ("Lost", _rate("connection_lost_total", "dependency"), "ops"),
        ("Errors of the last minute", _top("dependency_error_ratio", "dependency"), "percentunit"),
        ("Webhook requests", _rate("webhook_attempts_total", "endpoint, outcome"), "ops"),
    ),
    "Sagas and reconciliation": (
        ("Sagas, by state", _top("sagas", "saga, state"), "none"),
        ("Finished", _rate("saga_finished_total", "saga, outcome"), "ops"),
        ("Compared keys, by result", _rate("reconciliation_results_total", "reconciler, result"), "ops"),
        ("Scheduled messages", _top("scheduled_rows", "job"), "none"),
    ),
    "Processes": (
        ("Processes, by role", _top("processes", "role, state"), "none"),
        ("Exits", f"sum by (reason) (increase(spoolproof_process_exits_total{_S}[1h]))", "none"),
        ("Event loop lag, p99", _q("event_loop_lag_seconds", "instance", "0.99"), "s"),
        ("Free in the data directory", f"min by (instance) (spoolproof_data_free_bytes{_S})", "bytes"),
        ("Leases lost", _rate("lease_lost_total", "kind"), "ops"),
        ("Clocks against the database's", _top("clock_skew_seconds", "instance"), "s"),
    ),
}
"""The dashboard: rows of (title, expression, unit)."""

_WIDTH, _HEIGHT = 8, 7


def dashboard() -> str:
    """Return the dashboard as Grafana imports it, from 10 on."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, charts in ROWS.items():
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        panels.append({"type": "row", "title": row, "id": len(panels) + 1, "gridPos": place, "panels": []})
        top += 1
        for index, (title, expr, unit) in enumerate(charts):
            place = {"x": index % 3 * _WIDTH, "y": top + index // 3 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_panel(len(panels) + 1, title, expr, unit, place))
        top += -(-len(charts) // 3) * _HEIGHT
    document = {
        "uid": "spoolproof",
        "title": "Spoolproof",
        "tags": ["spoolproof"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_SOURCE, _variable("job", "{}"), _variable("instance", '{job=~"$job"}')]},
        "panels": panels,
    }
    return json.dumps(document, indent=2) + "\n"


_SOURCE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
_FROM = {"type": "prometheus", "uid": "${datasource}"}


def _variable(name: str, where: str) -> dict[str, Any]:
    query = f"label_values(spoolproof_build_info{where}, {name})"
    shown = {"label": name.capitalize(), "includeAll": True, "multi": True, "refresh": 2}
    return {"name": name, "type": "query", "datasource": _FROM, "query": query, **shown}


def _panel(id: int, title: str, expr: str, unit: str, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": id,
        "type": "timeseries",
        "title": title,
        "datasource": _FROM,
        "gridPos": place,
        "targets": [{"refId": "A", "datasource": _FROM, "expr": expr}],
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
    }
