"""Every message given up on, with the reason and its history, until a person or a success closes it.

One row per (consumer, message); source, type and id together tell one message from another. States: open → replaying →
resolved, or open again when the replay fails; open or replaying → discarded by a person: `MOVES`. Nothing here expires
while it is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from spoolproof import limits
from spoolproof.destination import Destination
from spoolproof.message import Message
from spoolproof.ports.retention import Rule
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.telemetry.metrics import counter

RETENTION = (Rule(table="dead_letter", key=("id",), since="closed_at", seconds=limits.CLOSED_RETENTION_SECONDS),)

RECORDED = counter("dead_letters_total", "Messages given up on, by whose they were and why.", "consumer", "reason")


class DeadLetterState(StrEnum):
    """Where a dead letter stands."""

    OPEN = "open"
    REPLAYING = "replaying"
    HELD = "held"  #: never tried: it waits behind the one that its ordering key is held for
    RESOLVED = "resolved"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Move:
    """What a verb does to a dead letter: from which states, and to which one."""

    after: tuple[DeadLetterState, ...]
    to: DeadLetterState


CLOSED = (DeadLetterState.RESOLVED, DeadLetterState.DISCARDED)
_UNCLOSED = tuple(state for state in DeadLetterState if state not in CLOSED)
FORCED = Move((DeadLetterState.OPEN, DeadLetterState.REPLAYING), DeadLetterState.REPLAYING)
"""A replay of one whose earlier replay seems to have come to nothing: the inbox absorbs what arrives twice."""
MOVES: Mapping[str, Move] = {
    "recorded": Move(tuple(DeadLetterState), DeadLetterState.OPEN),
    "held": Move((), DeadLetterState.HELD),
    "replayed": Move((DeadLetterState.OPEN,), DeadLetterState.REPLAYING),
    "resolved": Move(_UNCLOSED, DeadLetterState.RESOLVED),
    "discarded": Move(_UNCLOSED, DeadLetterState.DISCARDED),
}
"""Every verb of the audit trail and all that it allows."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One failed attempt: when (UTC), the error's class and text, and on which process."""

    at: datetime
    error_class: str
    error: str
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """A message given up on.

    id: version 7 UUID as text. consumer: the queue, or `relay:DESTINATION`. destination, routing_key: where a
    replay sends it. reason: handler, park (a person must find out what happened), permanent, unroutable, refused,
    encode, decode, unknown_type, unknown_version, too_large, expired, crash_loop, held, or `broker:WHY`. fingerprint:
    16 hex digits, equal for equal failures. attempts: oldest first, at most 20. service: whose it is, and so whose
    relay ships its replay; the store fills it in, empty where nobody had claimed a block. replayed_at: by the store's
    clock, the last time. version: one more with each edit. original_body: before the first edit.
    """

    id: str
    consumer: str
    message: Message
    destination: Destination
    routing_key: str | None
    reason: str
    fingerprint: str
    error_class: str
    error: str
    stack: str
    first_failed_at: datetime
    last_failed_at: datetime
    attempts: tuple[Attempt, ...] = ()
    state: DeadLetterState = DeadLetterState.OPEN
    replays: int = 0
    note: str | None = None
    closed_at: datetime | None = None
    service: str = ""
    replayed_at: datetime | None = None
    version: int = 1
    original_body: bytes | None = None


Position = tuple[datetime, str]
"""Where one stands in a list: `first_failed_at` and id, which never change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters; every given field must match. limit: at most so many, oldest failure first.

    key: the ordering key. text: in the error's class or text, in any case. since, until: of the last failure, from and
    before. after: those behind this position.
    """

    state: DeadLetterState | None = None
    consumer: str | None = None
    reason: str | None = None
    type: str | None = None
    message_id: str | None = None
    fingerprint: str | None = None
    key: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[str, ...] | None = None
    after: Position | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One verb on a dead letter: recorded, replayed, edited, imported, resolved, discarded; by whom and why."""

    at: datetime
    actor: str
    verb: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetterDetails:
    """A dead letter and everything that was done to it, oldest first."""

    record: DeadLetterRecord
    audit: tuple[AuditEntry, ...] = field(default_factory=tuple)


class DeadLetters(Protocol):
    """The table of dead letters. Every verb writes its audit row in the same transaction."""

    async def add(self, record: DeadLetterRecord) -> bool:
        """Keep a dead letter; committed on return. A second one for the same (consumer, message) updates the row: state
        open, newest error, `replays`, `id` and `first_failed_at` kept. False, and nothing written, if the inbox says
        this consumer has handled the message (a copy of it succeeded)."""

    async def get(self, id: str) -> DeadLetterDetails | None:
        """Return one with its audit trail, or None."""

    async def search(self, filter: DeadLetterFilter) -> Sequence[DeadLetterRecord]:
        """Return those that match, oldest failure first; perhaps none."""

    async def counts(self) -> Mapping[DeadLetterState, int]:
        """Return how many are in each state; each count stops at 100 000."""

    async def replay(self, id: str, actor: str, reason: str, *, queue: str | None = None, force: bool = False) -> bool:
        """Move one from open to replaying and put its copy into its service's outbox, both or neither.

        The copy keeps the message id, goes to `destination`, and carries the headers `spoolproof-replay-of` and
        `spoolproof-replay-no`. False, and nothing written, if it is not open (two people pressed the button).
        queue: it is this queue's from now on, and goes there; False too if that has a dead letter of this message.
        force: one that is replaying is moved again.
        """

    async def discard(self, id: str, actor: str, note: str) -> bool:
        """Close one that is open or replaying for good, keeping its content. False if it was in another state."""

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        """Mark the open or replaying one of this message as resolved in `tx`; False if there is none."""
