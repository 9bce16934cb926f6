"""What a breaker hands out: permits for calls that are watched, and a growing share after an outage; and for how long
it hands out nothing."""

from __future__ import annotations

from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.policies.call import Call
from spoolproof.policies.parts.ranges import Settings

_SHARE_FIRST = 0.2


class Permit:
    """One admitted call that is watched while it runs: a probe, or any call where slow ones count.

    admitted: when it was. call: whose attempt it is; None if it runs from then on.
    """

    __slots__ = ("_call", "admitted", "epoch", "is_probe", "is_slow", "lease_until")

    def __init__(
        self, epoch: int, admitted: float, *, is_probe: bool, lease_until: float, call: Call | None = None
    ) -> None:
        self._call = call
        self.epoch = epoch
        self.admitted = admitted
        self.is_probe = is_probe
        self.lease_until = lease_until
        self.is_slow = False

    @property
    def started_at(self) -> float:
        """Since when the dependency has it; what it waits for a slot or a token is our own doing."""
        return self.admitted if self._call is None else self._call.attempt_started_at

    def has_run(self, seconds: float, now: float) -> bool:
        """Whether the dependency has had it for so long."""
        return (self._call is None or self._call.has_started) and now - self.started_at >= seconds


def open_seconds(settings: Settings, round_: int, asked: float | None, random: RandomSource) -> float:
    """Return how long to stay open in this round; asked: what the dependency asked for, heard up to the maximum.

    Jitter may pass the maximum: cut there, half of the processes that opened together would probe together."""
    most = settings.open_seconds_max
    exponent = min(round_, 300)  # still a finite power at the largest factor
    seconds = min(most, settings.open_seconds * settings.open_factor**exponent)
    if settings.open_jitter:
        seconds = spread_seconds(seconds, ratio=settings.open_jitter, source=random)
    return seconds if asked is None else max(seconds, min(asked, most))


class Ramp:
    """The share of calls admitted after a breaker has closed, which grows from a fifth to all: by count, not by
    chance."""

    __slots__ = ("_credit", "_seconds", "_started")

    def __init__(self, now: float, seconds: float) -> None:
        self._started = now
        self._seconds = seconds
        self._credit = 1.0 - _SHARE_FIRST  # the first call is admitted

    def share(self, now: float) -> float:
        """Return the share as of now, up to 1."""
        done = max(0.0, (now - self._started) / self._seconds)
        return min(1.0, _SHARE_FIRST + (1.0 - _SHARE_FIRST) * done)

    def admits(self, now: float) -> bool:
        """Whether one more call is within the share."""
        self._credit += self.share(now)
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
