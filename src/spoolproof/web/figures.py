"""From what processes tell of themselves to the rows that people look at: pure, so that its test is a table.

A count is the sum over processes; what all of them see alike (the depth of a queue) is the largest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spoolproof.health.view import ProcessView

Views = Mapping[str, ProcessView]
SYSTEMS = ("healthy", "degraded", "unhealthy")
STATES = ("closed", "half_open", "open", "isolated")


def system_of(views: Iterable[ProcessView]) -> str:
    """Return the worst word of any process; "" without one."""
    return max((view.system for view in views), key=lambda word: SYSTEMS.index(word), default="")


_WHERE = {
    "dead letters": "/dead-letters",
    "review": "/reviews",
    "saga": "/sagas",
    "outbox": "/outbox",
    "spool": "/outbox",
    "queue": "/queues",
    "consumers": "/queues",
    "breaker": "/breakers",
    "cache": "/cache",
    "reconciliation": "/reconciliation",
    "webhook": "/webhooks",
}
_COMMAND = re.compile(r"[;:,]? (see )?spoolproof [^;]*$")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(\.\d+)?Z")


def issues_of(views: Views) -> list[dict[str, str]]:
    """Return every sentence once, with the service it is of and the page about it; the most often told first.

    What it says of the command line is left out: the page is the better place.
    """
    found: dict[tuple[str, str], int] = {}
    for view in views.values():
        for text in view.issues:
            found[view.service, text] = found.get((view.service, text), 0) + 1
    ordered = sorted(found.items(), key=lambda one: -one[1])
    return [
        {
            "service": service,
            "text": _INSTANT.sub(r"\1 \2 UTC", _COMMAND.sub("", text)),
            "to": next((page for word, page in _WHERE.items() if text.startswith(word)), ""),
        }
        for (service, text), _ in ordered
    ]


@dataclass(slots=True)
class QueueRow:
    """A queue and who reads it. depth: None where nobody counts it. is_held: a reader holds its handlers back."""

    name: str
    service: str
    depth: int | None = None
    in_flight: int = 0
    readers: int = 0
    is_held: bool = False
    outcomes: dict[str, int] = field(default_factory=dict)
    last_at: datetime | None = None


def queues_of(views: Views) -> dict[tuple[str, str], QueueRow]:
    """Return the queues of all processes by service and name."""
    rows: dict[tuple[str, str], QueueRow] = {}

    def row(view: ProcessView, name: str) -> QueueRow:
        return rows.setdefault((view.service, name), QueueRow(name, view.service))

    for view in views.values():
        for (name,), value in view.of("queue_messages"):
            one = row(view, name)
            one.depth = max(one.depth or 0, int(value))
        for (name,), value in view.of("consumer_gate_open"):
            one = row(view, name)
            one.readers += 1
            one.is_held = one.is_held or not value
        for (name,), value in view.of("consumer_in_flight"):
            row(view, name).in_flight += int(value)
        for (name, outcome), value in view.of("consumer_deliveries_total"):
            outcomes = row(view, name).outcomes
            outcomes[outcome] = outcomes.get(outcome, 0) + int(value)
        for (name,), value in view.of("last_ack_timestamp_seconds"):
            at = datetime.fromtimestamp(value, UTC)
            one = row(view, name)
            one.last_at = at if one.last_at is None else max(one.last_at, at)
    return dict(sorted(rows.items()))


@dataclass(slots=True)
class PolicyRow:
    """A policy of a service over all its processes. states: breakers, of keys too, by state. by_process: the worst
    state of each."""

    name: str
    service: str
    states: dict[str, int] = field(default_factory=dict)
    by_process: dict[str, str] = field(default_factory=dict)
    running: int | None = None
    limit: int | None = None
    calls: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    retries: int = 0

    @property
    def state(self) -> str:
        """The worst state of any; "" without a breaker."""
        return max((state for state, many in self.states.items() if many), key=STATES.index, default="")


def policies_of(views: Views) -> dict[tuple[str, str], PolicyRow]:
    """Return the policies of all processes by service and name."""
    rows: dict[tuple[str, str], PolicyRow] = {}

    def row(view: ProcessView, name: str) -> PolicyRow:
        return rows.setdefault((view.service, name), PolicyRow(name, view.service))

    for id, view in views.items():
        for (name, state), value in view.of("breaker_state"):
            one = row(view, name)
            one.states[state] = one.states.get(state, 0) + int(value)
            if value:
                one.by_process[id] = max((one.by_process.get(id, "closed"), state), key=STATES.index)
        for (name,), value in view.of("bulkhead_running"):
            one = row(view, name)
            one.running = (one.running or 0) + int(value)
        for (name,), value in view.of("bulkhead_limit"):
            one = row(view, name)
            one.limit = (one.limit or 0) + int(value)
        for labels, value in view.of("policy_calls_total"):
            calls = row(view, labels[0]).calls
            calls[labels[1]] = calls.get(labels[1], 0) + int(value)
        for labels, value in view.of("policy_rejected_total"):
            row(view, labels[0]).rejected += int(value)
        for labels, value in view.of("policy_retries_total"):
            if not labels[1]:
                row(view, labels[0]).retries += int(value)
    return dict(sorted(rows.items()))


@dataclass(slots=True)
class CacheRow:
    """A cache of a service over all its processes. shared: in how many of them the shared cache is used; None where
    memory is all there is meant to be."""

    name: str
    service: str
    processes: int = 0
    shared: int | None = None
    pending: int = 0
    hits: int = 0
    misses: int = 0
    stale: int = 0
    failed: int = 0
    entries: int = 0
    size_bytes: int = 0

    @property
    def ratio(self) -> float | None:
        """Hits of all reads; None before the first."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None


def caches_of(views: Views) -> dict[tuple[str, str], CacheRow]:
    """Return the caches of all processes by service and name."""
    rows: dict[tuple[str, str], CacheRow] = {}
    for view in views.values():
        for (name,), value in view.of("cache_entries"):
            one = rows.setdefault((view.service, name), CacheRow(name, view.service))
            one.processes += 1
            one.entries += int(value)
            one.size_bytes += int(view.sum("cache_bytes", cache=name))
            # a read that memory did not answer goes on to the shared cache: what counts is where it ended
            hits = int(view.sum("cache_reads_total", cache=name, result="hit"))
            reads = int(view.sum("cache_reads_total", cache=name, level="memory"))
            one.hits += hits
            one.misses += max(0, reads - hits)
            one.stale += int(view.sum("cache_stale_total", cache=name))
            one.failed += int(view.sum("cache_loads_total", cache=name, result="failed"))
            for _, is_shared in view.of("cache_shared"):
                one.shared = (one.shared or 0) + int(is_shared)
            one.pending += int(view.sum("cache_pending"))
    return dict(sorted(rows.items()))
