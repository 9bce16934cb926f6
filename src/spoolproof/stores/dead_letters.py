"""What every store does alike with dead letters: their columns, their moves in SQL, the copy that a replay sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from spoolproof.destination import destination_of, to_queue
from spoolproof.message import REPLAY_NO, REPLAY_OF, Outgoing, message_key, pack_meta, unpack_message
from spoolproof.ports.dead_letters import FORCED, MOVES, Attempt, DeadLetterRecord, DeadLetterState, Move
from spoolproof.stores.values import storable

SYSTEM_ACTOR = "spoolproof"


def _after(move: Move) -> str:
    return ", ".join(f"'{state}'" for state in move.after)


WORDS = {f"may_be_{verb}": _after(move) for verb, move in MOVES.items()}
"""The table of moves for statements: `state in ({may_be_discarded})`."""


def forced(replay: str) -> str:
    """Return the statement of a replay as that of a forced one."""
    return replay.replace(WORDS["may_be_replayed"], _after(FORCED))


_ALIKE = (
    *("consumer", "routing_key", "reason", "fingerprint", "error_class", "error", "stack"),
    *("first_failed_at", "last_failed_at", "replays", "note", "closed_at", "service"),
    *("replayed_at", "version", "original_body"),
)
_attempts = msgspec.json.Decoder(tuple[Attempt, ...])


def redirected(record: DeadLetterRecord, queue: str | None) -> DeadLetterRecord:
    """Return the record as one of another queue, if one is named."""
    if queue is None:
        return record
    return replace(record, consumer=queue, destination=to_queue(queue), routing_key=None)


def replay_copy(record: DeadLetterRecord, number: int) -> Outgoing:
    """Return what the replay of this number puts into the outbox."""
    headers = {**record.message.headers, REPLAY_OF: record.id, REPLAY_NO: number}
    message = msgspec.structs.replace(record.message, headers=headers)
    return Outgoing(message=message, destination=record.destination, routing_key=record.routing_key)


def columns_of(record: DeadLetterRecord, service: str) -> tuple[object, ...]:
    """Return what the statement that keeps one is given: id, consumer, key of the message, destination, routing_key,
    ordering_key, type, headers, body, reason, fingerprint, error_class, error, stack, attempts, first_failed_at,
    last_failed_at, service, id and source of the message. Error texts come from anywhere: not to record one would loop.
    """
    message = record.message
    attempts = [
        msgspec.structs.replace(attempt, error=storable(attempt.error), error_class=storable(attempt.error_class))
        for attempt in record.attempts
    ]
    return (
        *(record.id, record.consumer, message_key(message), str(record.destination), record.routing_key),
        *(message.key, message.type, pack_meta(message), message.body, record.reason, record.fingerprint),
        *(storable(record.error_class), storable(record.error), storable(record.stack)),
        *(msgspec.json.encode(attempts).decode(), record.first_failed_at, record.last_failed_at),
        *(service, message.id, message.source),
    )


def dead_letter_of(row: Mapping[str, Any]) -> DeadLetterRecord:
    """Return the record of a row, its instants as datetimes."""
    message = unpack_message(
        message_id=row["given_id"] or row["message_id"],
        type=row["type"],
        key=row["ordering_key"],
        meta=row["headers"],
        body=row["body"],
    )
    return DeadLetterRecord(
        id=str(row["id"]),
        destination=destination_of(row["destination"]),
        message=message,
        attempts=_attempts.decode(row["attempts"]),
        state=DeadLetterState(row["state"]),
        **{name: row[name] for name in _ALIKE},
    )
