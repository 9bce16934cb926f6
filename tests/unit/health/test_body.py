"""The documents monitors match literally."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from spoolproof.health.body import Answer, document_at
from spoolproof.health.snapshot import Dependency, Local, Need, Snapshot, Status
from spoolproof.ports.outbox import Backlog

AT = datetime(2026, 11, 22, 1, 46, 3, tzinfo=UTC)
SINCE = datetime(2026, 11, 22, 1, 45, 21, tzinfo=UTC)
DB = Dependency(key="db", need=Need.CRITICAL, status=Status.HEALTHY, state="connected", url="sqlite:///s", since=SINCE)
RABBITMQ_AWAY = Dependency(
    key="rabbitmq",
    need=Need.OPTIONAL,
    status=Status.UNHEALTHY,
    state="connecting",
    url="amqp://sales:***@rabbit-1:5672/prod",
    since=SINCE,
    away_seconds=42.0,
    error="ConnectionRefusedError",
)
AWAY = Snapshot(
    at=AT,
    service="sales",
    version="1.4.0",
    local=Local(is_started=True),
    db=DB,
    broker=RABBITMQ_AWAY,
    backlog=Backlog(rows=318, deferred=0, oldest_at=None),
)
WELL = replace(AWAY, broker=replace(RABBITMQ_AWAY, status=Status.HEALTHY, state="connected", error=None))
AWAY_ISSUE = "rabbitmq: not connected since 2026-11-22T01:45:21Z; 318 events kept in the outbox"
STARTING = Snapshot(at=AT, service="sales", version="1.4.0")


def answer(path: str, snapshot: Snapshot, *, is_detailed: bool = True) -> Answer:
    document = document_at(path)
    assert document is not None
    return document(snapshot, is_detailed)


def draining(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, local=replace(snapshot.local, is_draining=True))


@pytest.mark.parametrize(
    ("path", "snapshot", "status", "body"),
    [
        ("/live", AWAY, 200, {"status": "ok"}),
        ("/live", STARTING, 200, {"status": "ok"}),
        ("/live", draining(AWAY), 200, {"status": "ok"}),
        (
            "/live",
            replace(AWAY, is_loop_silent=True),
            503,
            {"status": "unavailable", "reason": "event_loop_blocked"},
        ),
        (
            "/live",
            replace(AWAY, local=Local(is_started=True, stalled=("relay",))),
            503,
            {"status": "unavailable", "reason": "loop_stalled", "loops": ["relay"]},
        ),
        ("/ready", AWAY, 200, {"status": "ok", "accepting": True, "rabbitmq": False, "db": True}),
        (
            "/ready",
            draining(AWAY),
            503,
            {"status": "unavailable", "reason": "draining", "accepting": False, "rabbitmq": False, "db": True},
        ),
        ("/ready", STARTING, 503, {"status": "unavailable", "reason": "starting", "accepting": False}),
        ("/startupz", AWAY, 200, {"status": "ok"}),
        ("/startupz", STARTING, 503, {"status": "unavailable", "reason": "starting"}),
        ("/health", WELL, 200, {"status": "ok", "rabbitmq": True, "db": True}),
        ("/health", AWAY, 200, {"status": "ok", "rabbitmq": False, "db": True, "issues": [AWAY_ISSUE]}),
        (
            "/health",
            replace(WELL, db=replace(DB, status=Status.UNHEALTHY)),
            503,
            {
                "status": "unhealthy",
                "rabbitmq": True,
                "db": False,
                "issues": ["db: not reachable since 2026-11-22T01:45:21Z"],
            },
        ),
        (
            "/health",
            replace(WELL, db=replace(DB, status=Status.UNKNOWN, checked_seconds_ago=31)),
            200,
            {"status": "degraded", "rabbitmq": True, "db": False, "issues": ["db: not checked for 31 s"]},
        ),
    ],
)
def test_a_probe_gets_exactly_this(path: str, snapshot: Snapshot, status: int, body: dict[str, Any]) -> None:
    """A9: orchestrators and monitors match status and literals."""
    assert Answer(status, body) == answer(path, snapshot)


def test_the_dependencies_of_a_service_without_its_broker_are_healthy_with_an_issue() -> None:
    """B5, field by field."""
    expected = {
        "status": "healthy",
        "service": "sales",
        "version": "1.4.0",
        "level": 0,
        "checked_at": "2026-11-22T01:46:03Z",
        "dependencies": {
            "rabbitmq": {
                "status": "unhealthy",
                "state": "connecting",
                "connected": False,
                "need": "optional",
                "pending_events": 318,
                "url": "amqp://sales:***@rabbit-1:5672/prod",
                "since": "2026-11-22T01:45:21Z",
                "error": "ConnectionRefusedError",
            },
            "db": {
                "status": "healthy",
                "state": "connected",
                "connected": True,
                "need": "critical",
                "url": "sqlite:///s",
                "since": "2026-11-22T01:45:21Z",
                "error": None,
            },
        },
        "issues": [AWAY_ISSUE],
    }

    assert Answer(200, expected) == answer("/health/dependencies", AWAY)


@pytest.mark.parametrize(
    ("backlog", "shown"),
    [
        (None, None),
        (Backlog(rows=0, deferred=0, oldest_at=None), 0),
        (Backlog(rows=100_000, deferred=0, oldest_at=None), "100000+"),
    ],
)
def test_a_count_says_when_it_stopped_counting(backlog: Backlog | None, shown: object) -> None:
    """A number that is too low is worse than none."""
    body = answer("/health/dependencies", replace(AWAY, backlog=backlog)).body

    assert shown == body["dependencies"]["rabbitmq"]["pending_events"]


def test_strangers_see_words_and_booleans_only() -> None:
    """Versions, addresses, counts and errors help an attacker choose."""
    assert {"status", "rabbitmq", "db"} == set(answer("/health", AWAY, is_detailed=False).body)
    body = answer("/health/dependencies", AWAY, is_detailed=False).body

    assert {"status", "service", "level", "checked_at", "dependencies"} == set(body)
    assert {"status", "state", "connected", "need"} == set(body["dependencies"]["rabbitmq"])


def test_loops_are_named_to_nobody_else() -> None:
    """A loop's name may be a queue's."""
    stalled = replace(AWAY, local=Local(is_started=True, stalled=("consumer.secret-project.0",)))

    assert {"status": "unavailable", "reason": "loop_stalled"} == answer("/live", stalled, is_detailed=False).body


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("/livez", "/live"),
        ("/health/live", "/live"),
        ("/readyz", "/ready"),
        ("/health/ready", "/ready"),
        ("/health/started", "/startupz"),
    ],
)
def test_an_alias_answers_as_its_path(path: str, same: str) -> None:
    """Each orchestrator has its own habit."""
    assert document_at(same) is document_at(path)


def test_what_parts_connect_to_is_shown_as_store_and_broker_are() -> None:
    """Redis when it is used; what policies protect has an entry of another form, and no boolean in the summary."""
    redis = Dependency(
        key="redis", need=Need.OPTIONAL, status=Status.UNHEALTHY, state="connecting", url="redis://", since=SINCE,
        error="CacheAway", reason="memory serves",
    )  # fmt: skip
    psp = replace(redis, key="psp", url="", need=Need.OPTIONAL, error_ratio=0.5)
    snapshot = replace(WELL, local=replace(WELL.local, dependencies=(redis, psp)))

    summary, detail = answer("/health", snapshot), answer("/health/dependencies", snapshot)

    assert ("ok", False) == (summary.body["status"], summary.body["redis"])
    assert "psp" not in summary.body
    shown = detail.body["dependencies"]
    assert {"status", "state", "connected", "need", "url", "since", "error"} == set(shown["redis"])
    assert 0.5 == shown["psp"]["error_ratio"]
