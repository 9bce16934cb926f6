"""What the end of one attempt of a step means: a pure decision.

An outcome that is not known is never guessed. `unavailable` says that nothing has landed for certain, so it costs no
attempt; `refused` is a definite no. Whatever may have landed is `unknown`, also when the system answered 409, which
often means that the first request with the same key still runs. 403 is a fault of configuration: it passes when
somebody mends it, and must not undo an order meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.errors import Unavailable
from spoolproof.policies import Kind, report
from spoolproof.policies.judging.foreign import ask, http_status
from spoolproof.ports.sagas import StepState
from spoolproof.saga.errors import Refused

_NOT_LANDED = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.RATE_LIMITED, Kind.LOCAL, Kind.DEADLINE, Kind.CANCELLED})
_FORBIDDEN, _CONFLICT = 403, 409


class Effect(StrEnum):
    """What the author of a step promises. keyed: the other side does things once for `step.key`. tx: it touches this
    store alone, through its transaction. once: nothing. read: it has no effect."""

    KEYED = "keyed"
    TX = "tx"
    ONCE = "once"
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """state: refused, unavailable or unknown. is_charged: it counts against the attempts. after_seconds: when the
    system wants to be asked again. may_have_landed: of what a policy tried within the attempt something is unknown,
    though its last word is not."""

    state: StepState
    text: str
    is_charged: bool = True
    is_bug: bool = False
    after_seconds: float | None = None
    may_have_landed: bool = False


def outcome_of(error: BaseException, effect: Effect, *, is_conflict: bool = False) -> Outcome:
    """Return what an attempt that raised means. is_conflict: the store says that its transaction lost against another
    and may succeed when run again."""
    text = error_line(error, limits.SAGA_ERROR_CHARACTERS_MAX)
    if isinstance(error, Refused):
        return Outcome(state=StepState.REFUSED, text=str(error) or text)
    verdict, status = report(error).verdict, http_status(error)
    is_bug = verdict.kind is Kind.BUG or str(ask(error, "sqlstate") or "").startswith("42")
    after = verdict.retry_after_seconds
    is_known = not verdict.is_unknown and not is_bug
    if effect is Effect.TX:
        if isinstance(error, Unavailable) or is_conflict:
            return Outcome(state=StepState.UNAVAILABLE, text=text, is_charged=False, after_seconds=after)
        is_refused = verdict.kind is Kind.PERMANENT and not is_bug
        # rolled back, whatever it was
        return Outcome(state=StepState.REFUSED if is_refused else StepState.UNAVAILABLE, text=text, is_bug=is_bug)
    if is_known and status == _FORBIDDEN:
        return Outcome(state=StepState.UNAVAILABLE, text=text, is_charged=False, after_seconds=after)
    if is_known and verdict.kind is Kind.PERMANENT and status != _CONFLICT:
        return Outcome(state=StepState.REFUSED, text=text)
    if is_known and verdict.kind in _NOT_LANDED:
        return Outcome(state=StepState.UNAVAILABLE, text=text, is_charged=False, after_seconds=after)
    return Outcome(state=StepState.UNKNOWN, text=text, is_bug=is_bug, after_seconds=after)
