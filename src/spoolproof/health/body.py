"""What each path answers: pure, from a snapshot to a status code and a JSON document.

Monitors match these documents literally; a field that goes or changes its meaning is a breaking change. Everybody may
see words and booleans. What tells an attacker something (URLs, versions, counts, errors, names) needs `is_detailed`.

`/health` says `ok` where the form with dependencies says `healthy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spoolproof.health.snapshot import Dependency, Snapshot
from spoolproof.health.verdict import System, count_text, instant, issues_of, stuck_reason, system_of, unready_reason
from spoolproof.telemetry.redaction import masked_text


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and the document that goes with it."""

    status: int
    body: Mapping[str, Any]


Document = Callable[[Snapshot, bool], Answer]


def live(snapshot: Snapshot, is_detailed: bool) -> Answer:
    """Does this process make progress? 503 asks for a restart."""
    reason = stuck_reason(snapshot)
    if reason is None:
        return Answer(200, {"status": "ok"})
    loops = {"loops": list(snapshot.local.stalled)} if is_detailed and snapshot.local.stalled else {}
    return Answer(503, {"status": "unavailable", "reason": reason, **loops})


def ready(snapshot: Snapshot, is_detailed: bool) -> Answer:
    """May work be sent here now?"""
    reason = unready_reason(snapshot)
    booleans = _booleans(snapshot)
    if reason is None:
        return Answer(200, {"status": "ok", "accepting": True, **booleans})
    return Answer(503, {"status": "unavailable", "reason": reason, "accepting": False, **booleans})


def started(snapshot: Snapshot, is_detailed: bool) -> Answer:
    """Has the start finished? Stays true while draining: the start is not undone."""
    if snapshot.local.is_started:
        return Answer(200, {"status": "ok"})
    return Answer(503, {"status": "unavailable", "reason": "starting"})


def summary(snapshot: Snapshot, is_detailed: bool) -> Answer:
    """The state of the whole in one word, and what is worth a look, if anything is."""
    system = system_of(snapshot)
    word = "ok" if system is System.HEALTHY else system.value
    body: dict[str, Any] = {"status": word, **_booleans(snapshot)}
    issues = [masked_text(issue.text) for issue in issues_of(snapshot)] if is_detailed else []
    return Answer(_code(system), body | {"issues": issues} if issues else body)


def dependencies(snapshot: Snapshot, is_detailed: bool) -> Answer:
    """Each dependency, and everything worth a look."""
    system = system_of(snapshot)
    body: dict[str, Any] = {"status": system.value, "service": snapshot.service}
    if is_detailed:
        body["version"] = snapshot.version
    body |= {"level": snapshot.local.level, "checked_at": instant(snapshot.at)}
    body["dependencies"] = {one.key: _dependency(one, snapshot, is_detailed) for one in snapshot.dependencies}
    if is_detailed:
        body["issues"] = [masked_text(issue.text) for issue in issues_of(snapshot)]
    return Answer(_code(system), body)


def document_at(path: str) -> Document | None:
    """Return what answers a path, else None."""
    return _DOCUMENTS.get(path)


_DOCUMENTS: Mapping[str, Document] = {
    "/live": live,
    "/livez": live,
    "/health/live": live,
    "/ready": ready,
    "/readyz": ready,
    "/health/ready": ready,
    "/startupz": started,
    "/health/started": started,
    "/health": summary,
    "/health/dependencies": dependencies,
}


def _booleans(snapshot: Snapshot) -> dict[str, bool]:
    # of policies nothing: they are as many as an application likes, and monitors match these documents
    return {one.key: one.is_healthy for one in snapshot.dependencies if one.url}


def _code(system: System) -> int:
    return 503 if system is System.UNHEALTHY else 200


def _dependency(one: Dependency, snapshot: Snapshot, is_detailed: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "status": one.status.value,
        "state": one.state,
        "connected": one.is_healthy if one.url else one.state == "connected",
        "need": one.need.value,
    }
    if not is_detailed:
        return body
    if not one.url:
        figures = {"error_ratio": one.error_ratio, "p50_seconds": one.p50_seconds, "p95_seconds": one.p95_seconds}
        return body | {"since": instant(one.since), "reason": one.reason, "error": one.error, **figures}
    if one is snapshot.broker:
        body["pending_events"] = None if snapshot.backlog is None else count_text(snapshot.backlog.rows)
    return body | {"url": one.url, "since": instant(one.since), "error": one.error}
