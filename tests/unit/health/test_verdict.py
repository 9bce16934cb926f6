"""What a snapshot means, as tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spoolproof.health.snapshot import Dependency, Local, Need, OpenDeadLetters, Ownership, Snapshot, Status
from spoolproof.health.verdict import System, issues_of, stuck_reason, system_of, unready_reason
from spoolproof.ports.outbox import Backlog

AT = datetime(2026, 11, 22, 1, 46, 3, tzinfo=UTC)
SINCE = datetime(2026, 11, 22, 1, 45, 21, tzinfo=UTC)

DB = Dependency(key="db", need=Need.CRITICAL, status=Status.HEALTHY, state="connected", url="sqlite:///s", since=SINCE)
RABBITMQ = Dependency(
    key="rabbitmq", need=Need.OPTIONAL, status=Status.HEALTHY, state="connected", url="amqp://h", since=SINCE
)
DB_AWAY = replace(DB, status=Status.UNHEALTHY, state="disconnected", error="StoreUnavailable", away_seconds=42.0)
RABBITMQ_AWAY = replace(RABBITMQ, status=Status.UNHEALTHY, state="connecting", away_seconds=42.0)
STARTED = Local(is_started=True)
WELL = Snapshot(at=AT, service="sales", version="1", local=STARTED, db=DB, broker=RABBITMQ)


def local(**facts: object) -> Snapshot:
    return replace(WELL, local=replace(STARTED, **facts))


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (WELL, None),
        (local(stalled=("relay",)), "loop_stalled"),
        (replace(WELL, is_loop_silent=True), "event_loop_blocked"),
        (replace(WELL, db=DB_AWAY, broker=RABBITMQ_AWAY), None),
        (local(is_draining=True), None),
        (local(is_fenced=True), None),
        (local(is_started=False), None),
    ],
)
def test_only_a_fault_that_a_restart_mends_fails_liveness(snapshot: Snapshot, reason: str | None) -> None:
    """A restart for an outage adds a restart to the outage."""
    assert reason == stuck_reason(snapshot)


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (WELL, None),
        (Snapshot(at=AT, service="sales", version="1"), "starting"),
        (local(is_started=False), "starting"),
        (local(is_draining=True), "draining"),
        (local(is_draining=True, is_started=False), "draining"),
        (replace(WELL, is_loop_silent=True), "event_loop_blocked"),
        (local(is_fenced=True), "fenced"),
        (replace(local(is_fenced=True), db=DB_AWAY), "store_unavailable"),
        (replace(WELL, db=DB_AWAY), "store_unavailable"),
        (replace(WELL, db=replace(DB, status=Status.UNKNOWN)), None),
        (local(unsubscribed=("shop.pay",)), "subscription_missing"),
        (replace(local(unsubscribed=("shop.pay",)), broker=RABBITMQ_AWAY), None),
        (replace(WELL, broker=RABBITMQ_AWAY), None),
        (replace(WELL, broker=RABBITMQ_AWAY, needs={"rabbitmq"}), "rabbitmq_unavailable"),
        (replace(WELL, broker=replace(RABBITMQ_AWAY, away_seconds=29.9), needs={"rabbitmq"}), None),
        (replace(WELL, needs={"rabbitmq", "db"}), None),
    ],
)
def test_readiness_fails_only_for_what_makes_work_useless_here(snapshot: Snapshot, reason: str | None) -> None:
    """A shared outage of something optional must not take every process out of the load balancer at once."""
    assert reason == unready_reason(snapshot)


@pytest.mark.parametrize(
    ("snapshot", "system"),
    [
        (WELL, System.HEALTHY),
        (replace(WELL, broker=RABBITMQ_AWAY), System.HEALTHY),
        (replace(WELL, broker=replace(RABBITMQ_AWAY, need=Need.CRITICAL)), System.UNHEALTHY),
        (replace(WELL, broker_issues=("a queue had vanished",)), System.HEALTHY),
        (
            replace(WELL, broker=replace(RABBITMQ, need=Need.CRITICAL), broker_issues=("a queue had vanished",)),
            System.DEGRADED,
        ),
        (replace(WELL, db=DB_AWAY), System.UNHEALTHY),
        (replace(WELL, db=replace(DB, status=Status.UNKNOWN, checked_seconds_ago=31.0)), System.DEGRADED),
        (local(stalled=("relay",)), System.UNHEALTHY),
        (local(failpoints=("relay.after_confirm=kill@1",)), System.HEALTHY),
        (Snapshot(at=AT, service="sales", version="1"), System.UNHEALTHY),
    ],
)
def test_the_whole_follows_from_its_critical_parts(snapshot: Snapshot, system: System) -> None:
    """B5: a service that works without its broker is healthy, with an issue."""
    assert system == system_of(snapshot)


def backlog(rows: int, seconds: float | None) -> Backlog:
    return Backlog(rows=rows, deferred=0, oldest_at=None if seconds is None else AT - timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("snapshot", "issues"),
    [
        (WELL, []),
        (
            replace(WELL, broker=RABBITMQ_AWAY, backlog=backlog(318, 30)),
            ["rabbitmq: not connected since 2026-11-22T01:45:21Z; 318 events kept in the outbox"],
        ),
        (replace(WELL, broker=RABBITMQ_AWAY), ["rabbitmq: not connected since 2026-11-22T01:45:21Z"]),
        (replace(WELL, broker_issues=("blocked for 31 s",)), ["rabbitmq: blocked for 31 s"]),
        (replace(WELL, db=DB_AWAY), ["db: not reachable since 2026-11-22T01:45:21Z"]),
        (
            replace(WELL, db=replace(DB, status=Status.UNKNOWN, checked_seconds_ago=31.2)),
            ["db: not checked for 31 s"],
        ),
        (local(is_gate_shut=True), ["consumers: the gate is shut; no handler starts until the store answers"]),
        (replace(WELL, backlog=backlog(7, 60)), []),
        (replace(WELL, backlog=backlog(7, 61)), ["outbox: 7 events wait, the oldest for 61 s"]),
        (replace(WELL, backlog=backlog(100_000, 61)), ["outbox: 100000+ events wait, the oldest for 61 s"]),
        (replace(WELL, ownership=Ownership(shards=16, unowned=3, seconds=59)), []),
        (
            replace(WELL, ownership=Ownership(shards=16, unowned=3, seconds=60)),
            ["outbox: 3 of 16 shards have no relay for 60 s"],
        ),
        (replace(WELL, ownership=Ownership(shards=16, unowned=0, seconds=0)), []),
        (
            replace(WELL, ownership=Ownership(shards=16, unowned=16, seconds=2), backlog=backlog(5, 3)),
            ["outbox: 16 of 16 shards have no relay for 2 s; 5 events wait"],
        ),
        (replace(WELL, ownership=Ownership(shards=16, unowned=16, seconds=0), backlog=backlog(5, 3)), []),
        (replace(WELL, backlog=backlog(1, 61)), ["outbox: 1 event waits, the oldest for 61 s"]),
        (
            replace(WELL, dead_letters=OpenDeadLetters(count=3, oldest_at=SINCE)),
            ["dead letters: 3 open, the oldest since 2026-11-22T01:45:21Z; see spoolproof dlq groups"],
        ),
        (
            replace(WELL, dead_letters=OpenDeadLetters(count=100_000, oldest_at=SINCE)),
            [
                "dead letters: 100000+ open, the oldest since 2026-11-22T01:45:21Z: too many to be read one by one; "
                "intake goes on; see spoolproof dlq groups"
            ],
        ),
        (local(issues=("breaker psp: open since …",)), ["breaker psp: open since …"]),
        (local(stalled=("relay",)), ["loop relay: stalled"]),
        (replace(WELL, is_loop_silent=True), ["event loop: blocked for over 10 s"]),
        (local(is_fenced=True), ["leases: no renewal was answered in time; nothing is shipped until one is"]),
        (local(unsubscribed=("shop.pay",)), ["queue shop.pay: the broker does not deliver"]),
        (local(failpoints=("relay.after_confirm=kill@3",)), ["failpoints armed: relay.after_confirm=kill@3"]),
    ],
)
def test_everything_worth_a_look_is_an_issue(snapshot: Snapshot, issues: list[str]) -> None:
    """What nobody lists, nobody sees."""
    assert issues == [issue.text for issue in issues_of(snapshot)]
