"""What a breaker hands out: permits for calls that are watched, handles for isolations, a growing share after an
outage."""

from __future__ import annotations

from collections.abc import Callable

_SHARE_FIRST = 0.2


class Permit:
    """One admitted call that is watched while it runs: a probe, or any call where slow ones count."""

    __slots__ = ("epoch", "is_probe", "is_slow", "lease_until", "started")

    def __init__(self, epoch: int, started: float, *, is_probe: bool, lease_until: float) -> None:
        self.epoch = epoch
        self.started = started
        self.is_probe = is_probe
        self.lease_until = lease_until
        self.is_slow = False


class Isolation:
    """An operator's "leave it alone"; ends when released or at its time."""

    __slots__ = ("_release", "reason", "until")

    def __init__(self, release: Callable[[Isolation, float], None], reason: str, until: float) -> None:
        self._release = release
        self.reason = reason
        self.until = until

    def release(self, now: float) -> None:
        """End it. Idempotent."""
        self._release(self, now)


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
