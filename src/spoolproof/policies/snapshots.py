"""Reads what was kept of a breaker, and trusts none of it: it may be damaged, old, or of another release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spoolproof.policies import events

CLOSED, OPEN, HALF_OPEN, ISOLATED = "closed", "open", "half_open", "isolated"

VERSION = 1
REASON_MAX = 200  #: characters
ID_MAX = 64  #: characters
ISOLATE_SECONDS_MAX = 86_400  #: a forgotten isolation is an outage
_SECONDS_MAX = 86_400.0  #: what was known a day ago says nothing of today
_SKEW_SECONDS = 60.0  #: how far ahead another machine's wall clock may have been


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot as of now. open_seconds: what is left. isolations: reason, seconds left, id; those that have any."""

    state: str
    round: int
    open_seconds: float
    isolations: tuple[tuple[str, float, str | None], ...]


def read_snapshot(data: Mapping[str, Any], wall: float) -> Kept:
    """Return what a snapshot says at wall-clock time `wall`. Raises KeyError, TypeError or ValueError with why."""
    _check_age(data, wall)
    state, round_ = data["state"], data["round"]
    if state not in (CLOSED, OPEN, HALF_OPEN, ISOLATED):
        raise ValueError(f"state {state!r}")
    if isinstance(round_, bool) or not isinstance(round_, int) or round_ < 0:
        raise ValueError(f"round {round_!r}")
    left = max(read_time(data["open_until"]) - wall, 0.0) if state == OPEN else 0.0
    isolations = [
        (str(one["reason"])[:REASON_MAX], min(read_time(one["until"]) - wall, ISOLATE_SECONDS_MAX), _id(one.get("id")))
        for one in data["isolations"]
    ]
    return Kept(state, round_, left, tuple(one for one in isolations if one[1] > 0))


def cooldown_left(data: object, wall: float) -> float:
    """Return how many seconds of a cooldown a snapshot says are left, 0 if none. Raises as `read_snapshot` does."""
    if not isinstance(data, Mapping):
        raise TypeError("it is not a mapping")
    _check_age(data, wall)
    until = data.get("cooldown_until")
    return 0.0 if until is None else max(read_time(until) - wall, 0.0)


def tell_ignored(policy: str, key: str | None, error: Exception) -> None:
    """Tell that a snapshot could not be used, and why."""
    if events.listeners:
        events.emit(events.RestoreIgnored(policy=policy, key=key, reason=f"{type(error).__name__}: {error}"))


def _id(value: object) -> str | None:
    return value[:ID_MAX] if isinstance(value, str) and value else None


def _check_age(data: Mapping[str, Any], wall: float) -> None:
    if data["version"] != VERSION:
        raise ValueError(f"version {data['version']!r}, this release reads {VERSION}")
    age = wall - read_time(data["saved_at"])
    if not -_SKEW_SECONDS <= age <= _SECONDS_MAX:
        raise ValueError(f"saved {age:.0f} s ago")


def read_time(value: object) -> float:
    """Return a time in seconds that somebody else has written. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:
        raise ValueError(f"{value!r} is not a time")
    return float(value)
