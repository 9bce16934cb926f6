"""A dead letter as a document: what `--json` prints and a page shows.

A summary holds no body: lists are what people paste.
"""

from __future__ import annotations

from typing import Any

import msgspec

from spoolproof.ports.dead_letters import DeadLetterDetails, DeadLetterRecord


def summary(record: DeadLetterRecord) -> dict[str, Any]:
    """Return what a list shows of one."""
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
        "first_failed_at": record.first_failed_at,
        "last_failed_at": record.last_failed_at,
    }


def whole(details: DeadLetterDetails) -> dict[str, Any]:
    """Return everything that is known of one, with its body and audit trail."""
    record = details.record
    message = msgspec.to_builtins(record.message, builtin_types=(bytes,))
    body = message.pop("body")
    return {
        **summary(record),
        "destination": str(record.destination),
        "routing_key": record.routing_key,
        "note": record.note,
        "closed_at": record.closed_at,
        "stack": record.stack,
        "history": record.attempts,
        "message": {**message, **shown_body(body)},
        "audit": details.audit,
    }


def shown_body(body: bytes) -> dict[str, Any]:
    """Return a body as text where it is UTF-8, else in base64."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": body}
