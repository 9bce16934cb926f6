"""What one attempt's end means. Decided once, by the policy's one classifier; every part reads the same verdict.

Three statuses, because a third of what ends an attempt says nothing about the dependency: a cancellation, a rejection
by ourselves, a caller who had five milliseconds left."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """success, failure, or neutral: says nothing of the dependency."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class Kind(StrEnum):
    """Why an attempt did not succeed. The last three are neutral."""

    TRANSIENT = "transient"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    PERMANENT = "permanent"
    BUG = "bug"
    LOCAL = "local"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"


NEUTRAL_KINDS = frozenset({Kind.LOCAL, Kind.DEADLINE, Kind.CANCELLED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of one attempt. kind: None for a success. is_unknown: the effect may have happened all the same.

    retry_after_seconds: how long the dependency asked to be left alone. reason: one line for people.
    """

    status: Status
    kind: Kind | None = None
    is_unknown: bool = False
    retry_after_seconds: float | None = None
    reason: str = ""


SUCCESS = Verdict(Status.SUCCESS)


def verdict_of(
    kind: Kind, *, is_unknown: bool = False, retry_after_seconds: float | None = None, reason: str = ""
) -> Verdict:
    """Return the verdict of an attempt that ended in `kind`."""
    status = Status.NEUTRAL if kind in NEUTRAL_KINDS else Status.FAILURE
    return Verdict(status, kind, is_unknown, retry_after_seconds, reason)
