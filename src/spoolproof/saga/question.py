"""What a person is asked about a saga: one question at a time, kept on the saga's row in the commit that stops it.

A question names what it is about, what may be answered, and what is known. Answers are given through `saga.desk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from spoolproof.ports.sagas import Phase


class Kind(StrEnum):
    """Why a saga stands in review."""

    APPROVAL = "approval"
    UNKNOWN_OUTCOME = "unknown_outcome"
    EXHAUSTED = "exhausted"
    PAST_PIVOT = "past_pivot"
    FLOW_FAILED = "flow_failed"
    REPLAY_MISMATCH = "replay_mismatch"
    CRASH_LOOP = "crash_loop"
    DEADLINE = "deadline"
    COMPENSATION_FAILED = "compensation_failed"
    UNVERIFIED = "unverified"


ACTIONS: Mapping[Kind, tuple[str, ...]] = {
    Kind.APPROVAL: ("approve", "reject", "edit"),
    Kind.UNKNOWN_OUTCOME: ("landed", "not_landed", "compensate"),
    Kind.EXHAUSTED: ("retry", "skip", "compensate"),
    Kind.PAST_PIVOT: ("retry", "skip", "abandon"),
    Kind.FLOW_FAILED: ("retry", "compensate", "abandon"),
    Kind.REPLAY_MISMATCH: ("retry", "compensate", "abandon"),
    Kind.CRASH_LOOP: ("retry", "compensate", "abandon"),
    Kind.DEADLINE: ("retry", "abandon"),
    Kind.COMPENSATION_FAILED: ("retry", "mark_compensated", "abandon"),
    Kind.UNVERIFIED: ("retry", "mark_compensated", "abandon"),
}
"""What may be answered."""


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question. phase, step, item: the row of the journal it is about; empty for the saga as a whole."""

    kind: Kind
    text: str
    phase: Phase | None = None
    step: str = ""
    item: str = ""
    evidence: Any = None

    @property
    def actions(self) -> tuple[str, ...]:
        """Return what may be answered."""
        return ACTIONS[self.kind]


def written(question: Question) -> str:
    """Return a question as a saga's row holds it."""
    return msgspec.json.encode(question).decode()


def read(text: str) -> Question:
    """Return the question of a row."""
    return msgspec.json.decode(text, type=Question)
