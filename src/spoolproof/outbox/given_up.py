"""The dead letter of a message the relay could not deliver."""

from __future__ import annotations

from datetime import datetime

from spoolproof.ports.dead_letters import Attempt, DeadLetterRecord
from spoolproof.ports.outbox import OutboxRow


def relay_dead_letter(row: OutboxRow, reason: str, error: str, *, now: datetime, id: str) -> DeadLetterRecord:
    """Return the record of a row given up on; a replay sends it where it was going."""
    outgoing = row.outgoing
    return DeadLetterRecord(
        id=id,
        consumer=f"relay:{outgoing.destination}",
        message=outgoing.message,
        destination=outgoing.destination,
        routing_key=outgoing.routing_key,
        reason=reason,
        fingerprint="",
        error_class=reason,
        error=error,
        stack="",
        first_failed_at=now,
        last_failed_at=now,
        attempts=(Attempt(at=now, error_class=reason, error=f"attempt {row.attempts + 1}: {error}"),),
    )
