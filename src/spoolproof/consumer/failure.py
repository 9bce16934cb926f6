"""What to do with a failed attempt: a pure decision.

Attempts count failures of the message or its handler. The second attempt follows at once in this process; later ones
go through the broker's delay queues, so they survive a restart. Outages and cancellation are not decided here: they
count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof import limits
from spoolproof.backoff import delay_seconds, tier_for
from spoolproof.outcome import DeadLetter, Defer, RetryLater


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
    """Make it a dead letter."""

    reason: str


Decision = RunAgain | SendCopy | GiveUp


def decide(error: BaseException, attempt: int, *, attempts: int, delays_seconds: tuple[float, ...]) -> Decision:
    """Decide what follows a failed attempt.

    attempt: which one failed, from 1. attempts: how many there may be. delays_seconds: the waits before attempt 3, 4
    and so on; the last one repeats.
    """
    match error:
        case DeadLetter():
            return GiveUp("handler")
        case Defer(after_seconds=seconds) if seconds <= limits.DEFER_IN_PLACE_SECONDS:
            return RunAgain(seconds, counts=False)
        case Defer(after_seconds=seconds):
            return SendCopy(tier_for(seconds, limits.TIERS_SECONDS), counts=False)
        case _ if attempt >= attempts:
            return GiveUp("handler")
        case RetryLater(after_seconds=seconds):
            return SendCopy(tier_for(seconds, limits.TIERS_SECONDS), counts=True)
        case _ if attempt == 1:
            return RunAgain(limits.IMMEDIATE_RETRY_SECONDS, counts=True)
        case _:
            wait = delay_seconds(delays_seconds, attempt - 1)
            return SendCopy(tier_for(wait, limits.TIERS_SECONDS), counts=True)
