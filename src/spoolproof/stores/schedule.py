"""What every store does alike with scheduled messages: when they are due, and what is read back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from spoolproof.message import Outgoing, unpack_outgoing
from spoolproof.ports.schedule import ScheduledRow


def due_at(outgoing: Outgoing, now: datetime) -> datetime:
    """Return when a message is due that is written now, by the store's clock."""
    due = outgoing.due
    return now if due is None else due if isinstance(due, datetime) else now + due


def due_seconds(outgoing: Outgoing) -> tuple[float | None, float | None]:
    """Return, for a store that asks its own clock: the Unix seconds, or the seconds from now."""
    due = outgoing.due
    if isinstance(due, datetime):
        return due.timestamp(), None
    return None, 0.0 if due is None else due / timedelta(seconds=1)


def scheduled_row(columns: Sequence[Any], due_at: datetime, created_at: datetime) -> ScheduledRow:
    """Return the row of a service, a message id, destination, type, routing key, ordering key, headers and body."""
    service, message_id, destination, type, routing_key, key, meta, body = columns
    outgoing = unpack_outgoing(
        message_id=message_id,
        type=type,
        key=key,
        meta=meta,
        body=body,
        destination=destination,
        routing_key=routing_key,
    )
    return ScheduledRow(service=service, outgoing=outgoing, due_at=due_at, created_at=created_at)
