"""What a snapshot means: pure decisions, tested as tables.

Liveness fails only for what a restart mends. Readiness fails only for what makes work sent here useless; a shared
outage of something optional must never take every process out at once. Everything else is an issue: seen, not acted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from spoolproof import limits
from spoolproof.health.snapshot import DB, Dependency, Need, Snapshot, Status

_AMISS = (Status.DEGRADED, Status.UNHEALTHY)


class System(StrEnum):
    """The whole, from its parts by their need."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Issue:
    """A sentence for people. concerns: the key of the dependency at fault, or None."""

    text: str
    concerns: str | None = None


def stuck_reason(snapshot: Snapshot) -> str | None:
    """Return why this process should be restarted, else None."""
    if snapshot.is_loop_silent:
        return "event_loop_blocked"
    return "loop_stalled" if snapshot.local.stalled else None


def unready_reason(snapshot: Snapshot) -> str | None:
    """Return why no work may be sent here now, else None."""
    local = snapshot.local
    if local.is_draining:
        return "draining"
    if not local.is_started:
        return "starting"
    if snapshot.is_loop_silent:
        return "event_loop_blocked"
    if snapshot.db is not None and snapshot.db.status is Status.UNHEALTHY and not local.keeps_publishes:
        return "store_unavailable"
    if local.is_fenced:
        return "fenced"
    if local.unsubscribed and snapshot.broker is not None and snapshot.broker.is_healthy:
        return "subscription_missing"
    for dependency in snapshot.dependencies:
        if dependency.key in snapshot.needs and dependency.away_seconds >= limits.READY_NEEDS_SECONDS:
            return f"{dependency.key}_unavailable"
    return None


def system_of(snapshot: Snapshot) -> System:
    """Return the state of the whole: unhealthy without something critical, degraded by an issue of it, or by something
    important that does not work as it should. A store that is away is an issue where publishes are kept without it."""
    critical = {one.key: one for one in snapshot.dependencies if one.need is Need.CRITICAL}
    if snapshot.db is None or stuck_reason(snapshot) is not None:
        return System.UNHEALTHY
    spared = DB if snapshot.local.keeps_publishes else None
    if any(one.status is Status.UNHEALTHY and key != spared for key, one in critical.items()):
        return System.UNHEALTHY
    if any(issue.concerns in critical for issue in issues_of(snapshot)):
        return System.DEGRADED
    if any(one.status in _AMISS and one.need is not Need.OPTIONAL for one in snapshot.local.dependencies):
        return System.DEGRADED
    return System.HEALTHY


def issues_of(snapshot: Snapshot) -> list[Issue]:
    """Return everything worth a look, most telling first; empty when all is well."""
    return [
        *_dependency_issues(snapshot),
        *_outbox_issues(snapshot),
        *_dead_letter_issues(snapshot),
        *_local_issues(snapshot),
    ]


def instant(at: datetime) -> str:
    """Return a UTC instant as `2026-11-22T01:45:21Z`."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def count_text(rows: int) -> int | str:
    """Return a count of rows, `100000+` where counting stopped."""
    return f"{rows}+" if rows >= limits.ROWS_COUNTED_MAX else rows


def _dependency_issues(snapshot: Snapshot) -> list[Issue]:
    issues = []
    broker, db = snapshot.broker, snapshot.db
    if broker is not None and not broker.is_healthy:
        kept = "" if snapshot.backlog is None else f"; {_events(snapshot.backlog.rows)} kept in the outbox"
        issues.append(Issue(f"{broker.key}: not connected since {instant(broker.since)}{kept}", broker.key))
    if broker is not None:
        issues += [Issue(f"{broker.key}: {text}", broker.key) for text in snapshot.broker_issues]
    if db is not None and not db.is_healthy:
        issues.append(Issue(_away_text(db), DB))
    issues += [
        Issue(f"{one.key}: {one.status.value} since {instant(one.since)}: {one.reason}", one.key)
        for one in snapshot.local.dependencies
        if one.status in _AMISS and not one.url  # else its part tells
    ]
    if snapshot.local.is_gate_shut:
        issues.append(Issue("consumers: the gate is shut; no handler starts until the store answers", DB))
    return issues


def _away_text(db: Dependency) -> str:
    if db.status is Status.UNKNOWN and db.checked_seconds_ago is not None:
        return f"{DB}: not checked for {db.checked_seconds_ago:.0f} s"
    return f"{DB}: not reachable since {instant(db.since)}"


def _outbox_issues(snapshot: Snapshot) -> list[Issue]:
    issues = []
    key = None if snapshot.broker is None else snapshot.broker.key
    backlog, ownership = snapshot.backlog, snapshot.ownership
    if backlog is not None and backlog.oldest_at is not None:
        seconds = (snapshot.at - backlog.oldest_at).total_seconds()
        if seconds > limits.OUTBOX_OLD_SECONDS:
            text = f"outbox: {_events(backlog.rows, 'wait')}, the oldest for {seconds:.0f} s"
            issues.append(Issue(text, key))
    issues += [
        Issue(f"queue {queue}: the outbox is full; its handler runs again when there is room", key)
        for queue in snapshot.local.without_room
    ]
    if ownership is not None and ownership.unowned:
        rows = 0 if backlog is None else backlog.rows
        if ownership.seconds >= (limits.HEALTH_SAMPLE_SOON_SECONDS if rows else limits.RELAY_MISSING_SECONDS):
            shards = f"{ownership.unowned} of {ownership.shards} shards have no relay for {ownership.seconds:.0f} s"
            waiting = f"; {_events(rows, 'wait')}" if rows else ""
            issues.append(Issue(f"outbox: {shards}{waiting}", DB))
    return issues


def _events(rows: int, verb: str = "") -> str:
    text = "1 event" if rows == 1 else f"{count_text(rows)} events"
    return f"{text} {verb}{'s' if rows == 1 else ''}" if verb else text


def _dead_letter_issues(snapshot: Snapshot) -> list[Issue]:
    found = snapshot.dead_letters
    if found is None:
        return []
    text = f"dead letters: {count_text(found.count)} open, the oldest since {instant(found.oldest_at)}"
    if found.count >= limits.ROWS_COUNTED_MAX:
        return [Issue(f"{text}: too many to be read one by one; intake goes on; see spoolproof dlq groups")]
    return [Issue(f"{text}; see spoolproof dlq groups")]


def _local_issues(snapshot: Snapshot) -> list[Issue]:
    local = snapshot.local
    issues = [Issue(f"loop {name}: stalled") for name in local.stalled]
    if snapshot.is_loop_silent:
        issues.append(Issue(f"event loop: blocked for over {limits.EVENT_LOOP_SILENT_SECONDS:.0f} s"))
    if local.is_fenced:
        issues.append(Issue("leases: no renewal was answered in time; nothing is shipped until one is", DB))
    if snapshot.broker is not None and snapshot.broker.is_healthy:
        issues += [
            Issue(f"queue {queue}: the broker does not deliver", snapshot.broker.key) for queue in local.unsubscribed
        ]
    issues += [Issue(text) for text in local.issues]
    if local.failpoints:
        issues.append(Issue(f"failpoints armed: {', '.join(local.failpoints)}"))
    return issues
