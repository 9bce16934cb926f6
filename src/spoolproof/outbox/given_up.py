"""The dead letter of a message the relay could not deliver."""

from __future__ import annotations

from datetime import datetime

from spoolproof.ids import derived_id
from spoolproof.message import REPLAY_OF
from spoolproof.ports.dead_letters import Attempt, DeadLetterRecord, DeadLetters
from spoolproof.ports.outbox import OutboxRow


async def consumer_of(row: OutboxRow, dead_letters: DeadLetters) -> str:
    """Return whose dead letter a row becomes: the relay's, or, for a replay, whose it was, so that the same one is open
    again."""
    replayed = row.outgoing.message.headers.get(REPLAY_OF)
    before = await dead_letters.get(str(replayed)) if replayed else None
    return f"relay:{row.outgoing.destination}" if before is None else before.record.consumer


def relay_dead_letter(
    row: OutboxRow, reason: str, error: str, *, consumer: str, now: datetime, id: str
) -> DeadLetterRecord:
    """Return the record of a row given up on; a replay sends it where it was going."""
    outgoing = row.outgoing
    return DeadLetterRecord(
        id=id,
        consumer=consumer,
        message=outgoing.message,
        destination=outgoing.destination,
        routing_key=outgoing.routing_key,
        reason=reason,
        fingerprint=derived_id("relay", reason).replace("-", "")[:16],
        error_class=reason,
        error=error,
        stack="",
        first_failed_at=now,
        last_failed_at=now,
        attempts=(Attempt(at=now, error_class=reason, error=f"attempt {row.attempts + 1}: {error}"),),
    )
