"""What to do with a failed attempt: a pure decision.

Attempts count failures of the message or its handler. The second attempt follows at once in this process; later ones
go through the broker's delay queues, so they survive a restart. Outages and cancellation are not decided here: they
count nothing.

An error that a policy has seen says what it means for the message (`policies.report(error).disposition`). An outage
defers it, uncounted, for as long as it has been deferred already, so that the waits double; a message still deferred
a day after its first deferral, while every breaker is closed, is not waiting for an outage: a person decides. What an
outage takes is no part of that day.

On a gated queue a message waits where the gate can let it out when the outage ends: in the queue while the gate is
shut, in its place while others make the probes. In a delay queue it would wait on; and while the gate lets single
messages through, putting each one back would turn the whole queue over, again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from spoolproof import limits
from spoolproof.backoff import delay_seconds, tier_for
from spoolproof.errors import Action, BreakerOpen, Disposition
from spoolproof.outcome import DeadLetter, Defer, Outcome, Park, RetryLater
from spoolproof.policies.judging.report import Report, kept_report

PARK = "park"
"""The reason of a dead letter that asks a person: the effect may have happened, or nobody knows what holds it up."""
PERMANENT = "permanent"
"""The reason of one whose dependency answered that it never will."""


@dataclass(frozen=True, slots=True)
class RunAgain:
    """Run it again in this process after `seconds`; counts as said."""

    seconds: float
    counts: bool


@dataclass(frozen=True, slots=True)
class SendCopy:
    """Put a copy into the delay queue of `tier_seconds`, then ack; counts as said. later_seconds: what no tier is long
    enough for, else 0; the copy then waits in the store's schedule."""

    tier_seconds: int
    counts: bool
    later_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Make it a dead letter. detail: what the error itself does not say; may be empty."""

    reason: str
    detail: str = ""


Decision = RunAgain | SendCopy | GiveUp

_BACK_SECONDS = limits.TIERS_SECONDS[0]  #: the shortest way back into the queue that is not counted


def decide(
    error: BaseException,
    attempt: int,
    *,
    attempts: int,
    delays_seconds: tuple[float, ...],
    deferred_seconds: float = 0.0,
    gate: str = "closed",
    is_ordered: bool = False,
) -> Decision:
    """Decide what follows a failed attempt.

    attempt: which one failed, from 1. attempts: how many there may be. delays_seconds: the waits before attempt 3, 4
    and so on; the last one repeats. deferred_seconds: since the message's first deferral. gate: the strictest state of
    the policies its queue is gated on; open means that nothing leaves the queue. is_ordered: the first wait is before
    attempt 2, and all of them are `in_place`.
    """
    known = None if isinstance(error, Outcome) else kept_report(error)
    disposition = None if known is None else known.disposition
    match error:
        case DeadLetter():
            return GiveUp("handler")
        case Defer(after_seconds=seconds):
            return _defer(seconds)
        case _ if known is not None and disposition is not None and disposition.action is not Action.RETRY:
            return _dispose(error, known, disposition, deferred_seconds, gate)
        case TimeoutError() if known is None and gate != "closed":
            # the handler's own limit cut off what waited for the dependency, before a policy could say so
            return SendCopy(_BACK_SECONDS, counts=False)
        case _ if attempt >= attempts:
            return GiveUp("handler")
        case RetryLater(after_seconds=seconds):
            return _copy(seconds, counts=True)
        case _ if disposition is not None and disposition.after_seconds is not None:
            return _copy(disposition.after_seconds, counts=True)
        case _ if is_ordered:
            return RunAgain(delay_seconds(delays_seconds, attempt), counts=True)
        case _ if attempt == 1:
            return RunAgain(limits.IMMEDIATE_RETRY_SECONDS, counts=True)
        case _:
            wait = delay_seconds(delays_seconds, attempt - 1)
            return SendCopy(tier_for(wait, limits.TIERS_SECONDS), counts=True)


def in_place(decision: Decision) -> Decision:
    """Return the decision for an ordered message: what would leave as a copy waits where it is, or it would come back
    behind younger ones of its key."""
    if not isinstance(decision, SendCopy):
        return decision
    return RunAgain(max(decision.tier_seconds, decision.later_seconds), decision.counts)


def is_wait_for_release(reason: str) -> bool:
    """Whether another release of this service may know what this one does not."""
    return reason in ("unknown_type", "unknown_version")


def decide_refusal(reason: str, detail: str, *, waited_seconds: float) -> SendCopy | GiveUp:
    """Decide what follows when no handler can take a message.

    waited_seconds: for how long it has been refused like this. Two releases of one service read the same queue during
    a rolling deploy, and what one does not know the other may: it waits for as long again as it has waited.
    """
    if not is_wait_for_release(reason) or waited_seconds >= limits.UNKNOWN_SECONDS_MAX:
        return GiveUp(reason, detail)
    wait = min(max(limits.TIERS_SECONDS[1], waited_seconds), limits.UNKNOWN_WAIT_SECONDS_MAX)
    return SendCopy(tier_for(wait, limits.TIERS_SECONDS), counts=False)


def asks_a_person(error: BaseException) -> bool:
    """Whether nobody but a person may say what follows a failed attempt."""
    if isinstance(error, Park):
        return True
    known = None if isinstance(error, Outcome) else kept_report(error)
    return known is not None and known.disposition is not None and known.disposition.action is Action.PARK


def deferred_since(error: BaseException, before: datetime | None, now: datetime, *, gate: str) -> datetime | None:
    """Return since when a message that is deferred now, because of `error`, counts as deferred; None if it does not.

    before: what it brought. An outage makes no message old: one that a shut gate holds was not deferred at all, and
    any other counts for no longer than its waits grow.
    """
    if gate == "open":
        return None
    known = kept_report(error)
    if known is None or known.is_breaker_closed:
        return before or now
    return max(before or now, now - timedelta(seconds=limits.DEFER_GROWTH_SECONDS_MAX))


def _dispose(
    error: BaseException, known: Report, disposition: Disposition, deferred_seconds: float, gate: str
) -> Decision:
    """Do what a policy asks for: defer, dead-letter or park. There is no review queue yet: parked is a dead letter."""
    if disposition.action is Action.PARK:
        return GiveUp(PARK, disposition.reason)
    if disposition.action is Action.DEAD_LETTER:
        return GiveUp(PERMANENT)
    if gate == "open":
        return SendCopy(_BACK_SECONDS, counts=False)
    if gate == "half_open" and isinstance(error, BreakerOpen) and error.state == "half_open":
        return RunAgain(limits.DEFER_FIRST_SECONDS, counts=False)
    if deferred_seconds >= limits.DEFERRED_SECONDS_MAX and known.is_breaker_closed:
        hours = deferred_seconds / 3600
        return GiveUp(
            PARK, f"still deferred {hours:.0f} h after the first time, and no breaker is open: what holds it up?"
        )
    grown = min(deferred_seconds, limits.DEFER_GROWTH_SECONDS_MAX)
    least = limits.DEFER_FIRST_SECONDS if disposition.after_seconds is None else disposition.after_seconds
    return _defer(max(least, grown))


def _defer(seconds: float) -> Decision:
    if seconds <= limits.DEFER_IN_PLACE_SECONDS:
        return RunAgain(seconds, counts=False)
    return _copy(seconds, counts=False)


def _copy(seconds: float, *, counts: bool) -> SendCopy:
    tier_seconds = tier_for(seconds, limits.TIERS_SECONDS)
    return SendCopy(tier_seconds, counts, seconds if seconds > tier_seconds else 0.0)
