"""What a policy knew of a call that failed, kept on the exception itself: no wrapper, so `except` clauses stay as they
are."""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof.errors import CallRejected, Disposition, PolicyError
from spoolproof.policies.classifier import DEFAULT
from spoolproof.policies.disposition import disposition_of
from spoolproof.policies.verdict import Verdict

_ATTRIBUTE = "__spoolproof_report__"
_NOTES_MAX = 8  #: an exception object that a library raises again and again must not grow for ever


@dataclass(frozen=True, slots=True)
class Report:
    """How a call ended. attempts: begun. stop_reason: why no further attempt was made, empty without a Retry.

    disposition: what to do with the work behind it; None when whoever cancelled decides.
    """

    verdict: Verdict
    attempts: int
    elapsed_seconds: float
    stop_reason: str
    disposition: Disposition | None


def report(error: BaseException) -> Report:
    """Return what the outermost policy that saw `error` knew; one that no policy saw is classified afresh."""
    kept = getattr(error, _ATTRIBUTE, None)
    if isinstance(kept, Report):
        return kept
    verdict = DEFAULT.of_error(error)
    return Report(
        verdict,
        attempts=1,
        elapsed_seconds=0.0,
        stop_reason="",
        disposition=disposition_of(
            verdict, is_unknown_any=verdict.is_unknown, is_idempotent=False, is_breaker_closed=True
        ),
    )


def disposition_of_error(error: BaseException) -> Disposition | None:
    """Return what a policy said of the work behind `error`; None when no policy has seen it or it was cancelled."""
    kept = getattr(error, _ATTRIBUTE, None)
    if isinstance(kept, Report):
        return kept.disposition
    return report(error).disposition if isinstance(error, CallRejected) else None


def attach(error: BaseException, kept: Report, note: str) -> None:
    """Keep a report on an exception, with one line for whoever reads its traceback."""
    try:
        setattr(error, _ATTRIBUTE, kept)
    except (AttributeError, TypeError):
        return  # an exception class that allows no attributes; `report` classifies it afresh
    if isinstance(error, PolicyError):
        error.disposition = kept.disposition
    if note and len(getattr(error, "__notes__", ())) < _NOTES_MAX:
        error.add_note(note)
