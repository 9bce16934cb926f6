"""What a handler can say of its delivery, by returning or raising it.

Returning nothing means `Ack`. Any other exception counts as an attempt and is retried.
"""

from __future__ import annotations

from datetime import timedelta

from spoolproof.errors import InvalidMessage


def seconds_of(value: float | timedelta, name: str) -> float:
    """Return `value` in seconds. Raises InvalidMessage for a negative or non-finite one."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= seconds < float("inf"):
        raise InvalidMessage(name, value, "must be 0 or more seconds, and finite")
    return seconds


class Outcome(Exception):
    """Base of the verdicts a handler can return or raise."""


class Ack(Outcome):
    """Done: commit and acknowledge. Raised, it also ends the handler early."""


class RetryLater(Outcome):
    """Failed for now: try again after `after` (seconds or timedelta). Counts as an attempt."""

    def __init__(self, after: float | timedelta, reason: str = "") -> None:
        self.after_seconds = seconds_of(after, "after")
        self.reason = reason
        super().__init__(reason or f"retry after {self.after_seconds} s")


class Defer(Outcome):
    """Something this handler needs is away: try again after `after` (seconds or timedelta). Counts no attempt."""

    def __init__(self, after: float | timedelta, reason: str = "") -> None:
        self.after_seconds = seconds_of(after, "after")
        self.reason = reason
        super().__init__(reason or f"deferred for {self.after_seconds} s")


class DeadLetter(Outcome):
    """This message can never be handled: keep it as a dead letter now, with `reason` shown to the operator."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Park(Outcome):
    """A person must decide about this message: keep it as a review item with this `question`, and count it as handled.

    What the attempt wrote is undone. A replay from there runs the handler again.
    """

    def __init__(self, question: str) -> None:
        if not question.strip():
            raise InvalidMessage("question", question, "say what the person should find out")
        self.question = question
        super().__init__(question)
