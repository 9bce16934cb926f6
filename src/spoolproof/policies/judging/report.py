"""What to do with the work behind a call that failed for good: a pure decision.

There is no "drop". An outage never burns an attempt of the message that met it; an unknown outcome is never guessed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from spoolproof.errors import Action, BreakerOpen, CallRejected, Disposition, PolicyError
from spoolproof.policies.judging.classifier import DEFAULT
from spoolproof.policies.judging.foreign import ask
from spoolproof.policies.judging.verdict import Kind, Verdict

_ALWAYS_AN_OUTAGE = frozenset({Kind.LOCAL, Kind.RATE_LIMITED})
_PERHAPS_AN_OUTAGE = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT, Kind.DEADLINE})


def disposition_of(
    verdict: Verdict, *, is_unknown_any: bool, is_idempotent: bool, is_breaker_closed: bool, is_put_off: bool = False
) -> Disposition | None:
    """Return what becomes of the work, or None when there is nothing to decide: a success, or a cancellation.

    is_unknown_any: whether any attempt may have had its effect. is_breaker_closed: also True without a breaker; a
    breaker that is not closed means other traffic has confirmed the outage. is_put_off: it would have been tried again,
    had the wait not been too long for here, or the process not been about to end."""
    kind, reason, after = verdict.kind, verdict.reason, verdict.retry_after_seconds
    if kind is None or kind is Kind.CANCELLED:
        return None
    if is_unknown_any and not is_idempotent:
        return Disposition(Action.PARK, f"did it happen? {reason}")
    if kind is Kind.PERMANENT:
        return Disposition(Action.DEAD_LETTER, reason)
    if kind in _ALWAYS_AN_OUTAGE or is_put_off:
        return Disposition(Action.DEFER, reason, after)
    if kind in (Kind.TRANSIENT, Kind.OVERLOADED) and not verdict.is_unknown:
        return Disposition(Action.DEFER, reason, after)
    if kind in _PERHAPS_AN_OUTAGE and not is_breaker_closed:
        return Disposition(Action.DEFER, reason, after)
    return Disposition(Action.RETRY, reason, after)


_ATTRIBUTE = "__spoolproof_report__"
_NOTES_MAX = 8  #: an exception object that a library raises again and again must not grow for ever


@dataclass(frozen=True, slots=True)
class Report:
    """How a call ended. attempts: begun. stop_reason: why no further attempt was made, empty without a Retry.

    disposition: what to do with the work behind it; None when whoever cancelled decides. is_breaker_closed: whether
    every breaker it met was closed at its end, those of calls inside it included; also True without one. One whose
    share of calls still grows after an outage is not. ended_at: monotonic seconds. is_unknown_any: whether any of the
    attempts may have had its effect, also where the last one has none for certain.
    """

    verdict: Verdict
    attempts: int
    elapsed_seconds: float
    stop_reason: str
    disposition: Disposition | None
    is_breaker_closed: bool = True
    ended_at: float = 0.0
    is_unknown_any: bool = False


def report(error: BaseException) -> Report:
    """Return what the outermost policy that saw `error` knew; one that no policy saw is classified afresh."""
    kept = ask(error, _ATTRIBUTE)
    if isinstance(kept, Report):
        return kept
    verdict = DEFAULT.of_error(error)
    is_breaker_closed = not isinstance(error, BreakerOpen)
    return Report(
        verdict,
        attempts=1,
        elapsed_seconds=0.0,
        stop_reason="",
        disposition=disposition_of(
            verdict, is_unknown_any=verdict.is_unknown, is_idempotent=False, is_breaker_closed=is_breaker_closed
        ),
        is_breaker_closed=is_breaker_closed,
        is_unknown_any=verdict.is_unknown,
    )


def kept_report(error: BaseException) -> Report | None:
    """Return what the outermost policy that saw `error` knew; None when none has seen it."""
    kept = ask(error, _ATTRIBUTE)
    if isinstance(kept, Report):
        return kept
    return report(error) if isinstance(error, CallRejected) else None


def met_closed_breakers(error: BaseException, since: float) -> bool:
    """Whether a call that began at `since` and ended with `error` met none but closed breakers inside it.

    An older report is of another call: some libraries raise one object again and again.
    """
    if isinstance(error, BreakerOpen):
        return False
    kept = ask(error, _ATTRIBUTE)
    return kept.is_breaker_closed if isinstance(kept, Report) and kept.ended_at >= since else True


def attach(error: BaseException, kept: Report, note_of: str, note: str) -> None:
    """Keep a report on an exception, with one line for whoever reads its traceback. note_of: who says it; his latest
    counts."""
    try:
        setattr(error, _ATTRIBUTE, kept)
    except Exception:
        return  # an exception class that allows no attributes; `report` classifies it afresh
    if isinstance(error, PolicyError):
        error.disposition = kept.disposition
    if note:
        notes = ask(error, "__notes__")
        if isinstance(notes, list):  # an object raised again must not tell of the call before
            notes[:] = [one for one in notes if not (isinstance(one, str) and one.startswith(f"{note_of}:"))]
        add_note(error, f"{note_of}: {note}")


def add_note(error: BaseException, note: str) -> None:
    """Leave one line on an exception, unless it is there or there are enough. Never raises: the error has to come
    through, also of a class that allows no attributes."""
    with suppress(Exception):
        notes = getattr(error, "__notes__", ())
        if note not in notes and len(notes) < _NOTES_MAX:
            error.add_note(note)
