"""What to do with a failed attempt: a pure decision.

Attempts count failures of the message or its handler. The second attempt follows at once in this process; later ones
go through the broker's delay queues, so they survive a restart. Outages and cancellation are not decided here: they
count nothing.

An error that a policy has seen says what it means for the message (`policies.report(error).disposition`). An outage
defers it, uncounted, for as long as it has been deferred already, so that the waits double; a message still deferred
a day after its first deferral, while no breaker is open, is not waiting for an outage: a person decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof import limits
from spoolproof.backoff import delay_seconds, tier_for
from spoolproof.errors import Action, BreakerOpen, Disposition
from spoolproof.outcome import DeadLetter, Defer, Outcome, RetryLater
from spoolproof.policies.report import disposition_of_error

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
    """Put a copy into the delay queue of `tier_seconds`, then ack; counts as said."""

    tier_seconds: int
    counts: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Make it a dead letter. detail: what the error itself does not say; may be empty."""

    reason: str
    detail: str = ""


Decision = RunAgain | SendCopy | GiveUp


def decide(
    error: BaseException,
    attempt: int,
    *,
    attempts: int,
    delays_seconds: tuple[float, ...],
    deferred_seconds: float = 0.0,
    is_gated: bool = False,
) -> Decision:
    """Decide what follows a failed attempt.

    attempt: which one failed, from 1. attempts: how many there may be. delays_seconds: the waits before attempt 3, 4
    and so on; the last one repeats. deferred_seconds: since the message's first deferral. is_gated: whether a policy
    the queue is gated on is not closed.
    """
    disposition = None if isinstance(error, Outcome) else disposition_of_error(error)
    match error:
        case DeadLetter():
            return GiveUp("handler")
        case Defer(after_seconds=seconds):
            return _defer(seconds)
        case _ if disposition is not None and disposition.action is not Action.RETRY:
            if disposition.action is Action.DEFER and is_gated:
                # back into its queue at once: the gate holds it there, and lets it out when the outage ends
                return SendCopy(tier_for(0.0, limits.TIERS_SECONDS), counts=False)
            return _dispose(disposition, deferred_seconds, is_outage=isinstance(error, BreakerOpen))
        case _ if attempt >= attempts:
            return GiveUp("handler")
        case RetryLater(after_seconds=seconds):
            return SendCopy(tier_for(seconds, limits.TIERS_SECONDS), counts=True)
        case _ if disposition is not None and disposition.after_seconds is not None:
            return SendCopy(tier_for(disposition.after_seconds, limits.TIERS_SECONDS), counts=True)
        case _ if attempt == 1:
            return RunAgain(limits.IMMEDIATE_RETRY_SECONDS, counts=True)
        case _:
            wait = delay_seconds(delays_seconds, attempt - 1)
            return SendCopy(tier_for(wait, limits.TIERS_SECONDS), counts=True)


def _dispose(disposition: Disposition, deferred_seconds: float, *, is_outage: bool) -> Decision:
    """Do what a policy asks for: defer, dead-letter or park. There is no review queue yet: parked is a dead letter."""
    if disposition.action is Action.PARK:
        return GiveUp(PARK, disposition.reason)
    if disposition.action is Action.DEAD_LETTER:
        return GiveUp(PERMANENT)
    if deferred_seconds >= limits.DEFERRED_SECONDS_MAX and not is_outage:
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
    return SendCopy(tier_for(seconds, limits.TIERS_SECONDS), counts=False)
