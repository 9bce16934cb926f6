"""What a breaker hands out: permits for calls that are watched, handles for isolations, a growing share after an
outage. And for how long it hands out nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.policies.snapshots import ISOLATE_SECONDS_MAX, REASON_MAX

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


def isolation_faults(reason: object, seconds: object) -> list[str]:
    """Return what is wrong with an isolation that somebody asks for."""
    faults = []
    if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_MAX:
        faults.append(f"reason={reason!r}: 1 to {REASON_MAX} characters that tell the next person why")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= ISOLATE_SECONDS_MAX:
        faults.append(f"ttl_seconds={seconds!r}: a number from 1 to {ISOLATE_SECONDS_MAX:,}")
    return faults


def open_seconds(settings: Mapping[str, Any], round_: int, asked: float | None, random: RandomSource) -> float:
    """Return how long to stay open in this round; asked: what the dependency asked for, heard up to the maximum.

    Jitter may pass the maximum: cut there, half of the processes that opened together would probe together."""
    most: float = settings["open_seconds_max"]
    exponent = min(round_, 64)  # beyond any maximum, and still a finite power
    seconds: float = min(most, settings["open_seconds"] * settings["open_factor"] ** exponent)
    if settings["open_jitter"]:
        seconds = spread_seconds(seconds, ratio=settings["open_jitter"], source=random)
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
