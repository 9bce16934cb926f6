"""How a run of a saga stops before its flow has returned. None is an Exception, so no flow catches one by mistake."""

from __future__ import annotations

from spoolproof.saga.question import Question


class Halt(BaseException):
    """Base; a run ends with one of them, or with its flow."""


class Fenced(Halt):
    """Another process, or a person, has taken the saga: nothing more may be done for it here."""


class Reload(Halt):
    """A commit was not answered: the journal decides what happened."""


class Release(Halt):
    """Nothing to do for so many seconds; None: until something happens."""

    def __init__(self, seconds: float | None, waiting_for: str) -> None:
        super().__init__(seconds, waiting_for)
        self.seconds = seconds
        self.waiting_for = waiting_for


class Undo(Halt):
    """Undo what was done."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Ask(Halt):
    """A person has to decide."""

    def __init__(self, question: Question) -> None:
        super().__init__(question.text)
        self.question = question


def weightiest(halts: list[Halt]) -> Halt:
    """Return which of several counts: of those that only wait, the one that is due first."""
    for kind in (Fenced, Reload, Ask, Undo):
        for halt in halts:
            if isinstance(halt, kind):
                return halt
    waits = [halt for halt in halts if isinstance(halt, Release)]
    return min(waits, key=lambda halt: float("inf") if halt.seconds is None else halt.seconds)
