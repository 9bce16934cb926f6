"""What a person is asked about a saga. Each question is a review item, opened in the commit that stops the saga or has
it wait, and what is decided there has its effect in the commit of the decision (`saga/decisions.py`).

A saga that stands in review has one such question, kept on its row with the id of the item. An approval stops nothing:
the saga waits for the verdict as for a signal, so that it can be cancelled or run late meanwhile. Which items a saga
has opened is in its journal, for whoever ends it to close them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.caught import storable_text
from spoolproof.clock import Clock
from spoolproof.errors import InvalidMessage
from spoolproof.ids import Ids
from spoolproof.ports.reviews import Priority, ReviewItem, Reviews
from spoolproof.ports.sagas import Phase, SagaRow, StepRow, StepState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.review.item import new_item
from spoolproof.review.opening import open_item, settle_item

_EPOCH = datetime.fromtimestamp(0, UTC)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
PREFIX = "saga."
"""Of the kinds of review items that sagas open."""


class Kind(StrEnum):
    """Why a person is asked."""

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
    UNREADABLE = "unreadable"


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
    Kind.UNREADABLE: ("retry", "abandon"),
}
"""What may be answered."""


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question. phase, step, item: the row of the journal it is about; empty for the saga as a whole. name: of an
    approval. review: the id of its item, once there is one."""

    kind: Kind
    text: str
    phase: Phase | None = None
    step: str = ""
    item: str = ""
    evidence: Any = None
    name: str = ""
    priority: str = Priority.HIGH
    due_seconds: float | None = None
    review: str = ""


def written(question: Question, review: str) -> str:
    """Return a question as a saga's row holds it."""
    return msgspec.json.encode(msgspec.structs.replace(question, evidence=None, review=review)).decode()


def read(text: str) -> Question:
    """Return the question of a row."""
    return msgspec.json.decode(text, type=Question)


class Asking:
    """Opens and closes the review items of sagas, in the transaction that moves them."""

    def __init__(self, reviews: Reviews, *, clock: Clock, ids: Ids) -> None:
        self._reviews = reviews
        self._clock = clock
        self._ids = ids

    async def open(self, tx: StoreTransaction, saga: SagaRow, question: Question) -> str:
        """Open the item of a question, or find the one that is open; returns its id."""
        item = item_of(saga, question, self._ids.message_id(), self._clock.now())
        return (await open_item(self._reviews, tx, item)).id

    async def close(self, tx: StoreTransaction, ids: Iterable[str], reason: str) -> None:
        """Settle those that are still open: nothing depends on an answer any more."""
        for id in sorted(ids):  # two that close the same ones lock them in one order
            await settle_item(self._reviews, tx, id, reason, self._clock.now())


def approval(saga_id: str, name: str, *, text: str, evidence: object, **more: Any) -> Question:
    """Return the question of `saga.review`. Raises InvalidMessage."""
    most = limits.SAGA_REVIEW_NAME_MAX
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > most:
        raise InvalidMessage("name", name, f"of a review: 1 to {most} letters, digits, '-', '_' or '.'")
    question = Question(kind=Kind.APPROVAL, text=text or name, name=name, evidence=evidence, **more)
    item_of(SagaRow(saga_id=saga_id, service="-", name="-", version=1, key="-"), question, "-", _EPOCH)
    return question


def item_of(saga: SagaRow, question: Question, id: str, now: datetime) -> ReviewItem:
    """Return the review item of a question. Raises InvalidMessage."""
    is_late = saga.is_past_pivot and question.kind is not Kind.APPROVAL
    return new_item(
        id=id,
        service=saga.service,
        kind=PREFIX + question.kind,
        subject=storable_text("/".join(filter(None, (saga.name, question.name, saga.key)))),
        question=storable_text(question.text)[: limits.REVIEW_TEXT_MAX].strip() or question.kind,
        actions=tuple(one for one in ACTIONS[question.kind] if not (is_late and one == "compensate")),
        evidence={
            "saga": saga.saga_id,
            **({"name": question.name} if question.name else {}),
            **({"step": question.step, "item": question.item} if question.step else {}),
            "evidence": question.evidence,
        },
        priority=question.priority,
        due_seconds=question.due_seconds,
        now=now,
    )


def mark(name: str, review: str) -> StepRow:
    """Return the row of a journal that says that an approval's item was opened."""
    return StepRow(phase=Phase.FLOW, name=signal_of(name), item=review, state=StepState.SUCCEEDED, seq=0)


def signal_of(name: str) -> str:
    """Return the name of the signal by which an approval's verdict comes."""
    return f"review:{name}"


def approvals(steps: Iterable[StepRow]) -> list[str]:
    """Return the ids of all approval items that a journal knows."""
    return [row.item for row in steps if row.phase is Phase.FLOW and row.name.startswith("review:")]
