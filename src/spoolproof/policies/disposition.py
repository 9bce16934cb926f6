"""What to do with the work behind a call that failed for good: a pure decision.

There is no "drop". An outage never burns an attempt of the message that met it; an unknown outcome is never guessed.
"""

from __future__ import annotations

from spoolproof.errors import Action, Disposition
from spoolproof.policies.verdict import Kind, Verdict

_ALWAYS_AN_OUTAGE = frozenset({Kind.LOCAL, Kind.RATE_LIMITED})
_PERHAPS_AN_OUTAGE = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT, Kind.DEADLINE})


def disposition_of(
    verdict: Verdict,
    *,
    is_unknown_any: bool,
    is_idempotent: bool,
    is_breaker_closed: bool,
    is_put_off: bool = False,
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
