"""How long a delivery may stay unsettled in our hands.

A broker takes a delivery back that is not settled within its consumer timeout, and counts that; after some it gives the
message up. So everything that waits with a delivery, for a lane, for the store, for its own next run, does so for at
most a third of that limit since it arrived, and then goes as a copy, uncounted. Two thirds are left for one run of its
handler, which may take no longer.

The limit is the user's setting, or less when the broker has shown by taking deliveries back that its own is less.
"""

from __future__ import annotations

import math

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.ports.broker import Broker


class Patience:
    """One per process, shared by all its consumers."""

    def __init__(self, timeout_seconds: float, broker: Broker, clock: Clock) -> None:
        """timeout_seconds: the broker's limit as the settings have it."""
        self._timeout_seconds = timeout_seconds
        self._broker = broker
        self._clock = clock
        self._asked_at = -math.inf

    @property
    def hold_seconds(self) -> float:
        """How long a shut gate may hold a delivery."""
        return min(limits.GATE_HOLD_SECONDS_MAX, self._timeout_seconds / 3)

    @property
    def away_seconds(self) -> int:
        """The delay of a copy that would only be held again if it came back at once: ten times the hold, at most 60 s,
        so that copies are few beside an outage, and back soon after it."""
        seconds = min(limits.AWAY_SECONDS_MAX, 10 * self.hold_seconds)
        return max(tier for tier in limits.TIERS_SECONDS if tier <= max(seconds, limits.TIERS_SECONDS[0]))

    def hold_until(self, arrived_at: float) -> float:
        """Return until when the gate may hold a delivery, in monotonic seconds."""
        self._ask()
        return arrived_at + self.hold_seconds

    def leave_at(self, arrived_at: float) -> float:
        """Return when a delivery must go whatever it waits for, in monotonic seconds."""
        return arrived_at + self._timeout_seconds / 3

    def _ask(self) -> None:
        now = self._clock.monotonic()
        if now - self._asked_at >= limits.CONSUMER_TIMEOUT_ASKED_SECONDS:
            self._asked_at = now
            shown = self._broker.status().consumer_timeout_seconds
            if shown is not None:
                self._timeout_seconds = min(self._timeout_seconds, shown)
