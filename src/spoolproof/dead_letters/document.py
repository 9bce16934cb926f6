"""A dead letter as a document: what `--json` prints and a page shows.

A summary holds no body: lists are what people paste.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.ports.bulk import Bulk
from spoolproof.ports.dead_letters import DeadLetterDetails, DeadLetterRecord, DeadLetterState
from spoolproof.ports.triage import Group


def group_document(group: Group) -> dict[str, Any]:
    """Return a group, with the first line of its newest error and whether it fails still."""
    line = next(iter(group.error.splitlines()), "")
    return {**asdict(group), "error": line, "is_failing": group.recent > 0}


def summary(record: DeadLetterRecord, now: datetime) -> dict[str, Any]:
    """Return what a list shows of one. is_stuck: replayed an hour ago, and neither success nor failure since."""
    stuck_at = (
        None if record.replayed_at is None else record.replayed_at + timedelta(seconds=limits.REPLAY_STUCK_SECONDS)
    )
    return {
        "id": record.id,
        "state": record.state,
        "consumer": record.consumer,
        "service": record.service,
        "message_id": record.message.id,
        "type": record.message.type,
        "reason": record.reason,
        "error_class": record.error_class,
        "error": record.error,
        "fingerprint": record.fingerprint,
        "attempts": len(record.attempts),
        "replays": record.replays,
        "replayed_at": record.replayed_at,
        "is_stuck": record.state is DeadLetterState.REPLAYING and stuck_at is not None and stuck_at <= now,
        "first_failed_at": record.first_failed_at,
        "last_failed_at": record.last_failed_at,
    }


def whole(details: DeadLetterDetails, now: datetime) -> dict[str, Any]:
    """Return everything that is known of one, with its body and audit trail."""
    record = details.record
    message = msgspec.to_builtins(record.message, builtin_types=(bytes,))
    body = message.pop("body")
    return {
        **summary(record, now),
        "destination": str(record.destination),
        "routing_key": record.routing_key,
        "version": record.version,
        "original_body": None if record.original_body is None else shown_body(record.original_body),
        "note": record.note,
        "closed_at": record.closed_at,
        "stack": record.stack,
        "history": record.attempts,
        "message": {**message, **shown_body(body)},
        "audit": details.audit,
    }


def bulk_document(bulk: Bulk, outcomes: Mapping[DeadLetterState, int], is_worked: bool) -> dict[str, Any]:
    """Return a bulk with what is left of it. is_worked: whether a process runs that works bulks off."""
    left = bulk.total - bulk.moved - bulk.skipped
    return {
        **msgspec.structs.asdict(bulk),
        "left": left,
        "outcomes": {state.value: count for state, count in outcomes.items()},
        "is_worked": is_worked,
    }


def shown_body(body: bytes) -> dict[str, Any]:
    """Return a body as text where it is UTF-8, else in base64."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": body}
