"""What becomes of an outbox row after one publish: a pure decision, the rule book of the relay.

Only a confirm without a return removes a row. What infrastructure does to it costs no attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spoolproof import limits
from spoolproof.ports.broker import Barred, Confirmed, Failed, Nacked, PublishOutcome, Refused, Returned, Unknown
from spoolproof.ports.outbox import OutboxRow


@dataclass(frozen=True, slots=True)
class Remove:
    """The broker has it: delete the row."""


@dataclass(frozen=True, slots=True)
class Keep:
    """It stays where it is and is sent again, uncounted. rests: what waits a while before that, if anything: the whole
    destination, which is full, or only this type of it."""

    rests: Literal["", "destination", "type"] = ""


@dataclass(frozen=True, slots=True)
class DeferRow:
    """Count an attempt and try again after `seconds`."""

    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Make it a dead letter."""

    reason: str
    error: str


Fate = Remove | Keep | DeferRow | GiveUp


def fate_of(row: OutboxRow, outcome: PublishOutcome, *, is_paused: bool) -> Fate:
    """Decide what becomes of a row after one publish.

    is_paused: so many of its (destination, type) were returned that the queue is missing, not this message wrong.
    """
    match outcome:
        case Confirmed():
            return Remove()
        case Returned() if row.outgoing.may_be_unrouted:
            return Remove()
        case Returned() if is_paused:
            return Keep()
        case Returned(detail) if row.attempts < len(limits.UNROUTABLE_DELAYS_SECONDS):
            return DeferRow(limits.UNROUTABLE_DELAYS_SECONDS[row.attempts], detail)
        case Returned(detail):
            return GiveUp("unroutable", detail)
        case Refused(code, detail):
            return GiveUp("refused", f"{code} {detail}")
        case Failed(detail, is_final=False) if row.attempts < len(limits.WEBHOOK_DELAYS_SECONDS):
            seconds = limits.WEBHOOK_DELAYS_SECONDS[row.attempts] * outcome.spread
            return DeferRow(max(seconds, outcome.at_least_seconds), detail)
        case Failed(detail):
            return GiveUp("webhook", detail)
        case Nacked():
            return Keep("destination")
        case Barred():
            return Keep("type")
        case Unknown():
            return Keep()
