"""Reads what was kept of a breaker, and trusts none of it: it may be damaged, old, or of another release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLOSED, OPEN, HALF_OPEN, ISOLATED = "closed", "open", "half_open", "isolated"

VERSION = 1
REASON_MAX = 200  #: characters
ISOLATE_SECONDS_MAX = 86_400  #: a forgotten isolation is an outage
_SECONDS_MAX = 86_400.0  #: what was known a day ago says nothing of today
_SKEW_SECONDS = 60.0  #: how far ahead another machine's wall clock may have been


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot as of now. open_seconds: what is left. isolations: reason and seconds left, those that have any."""

    state: str
    round: int
    open_seconds: float
    isolations: tuple[tuple[str, float], ...]


def read_snapshot(data: Mapping[str, Any], wall: float) -> Kept:
    """Return what a snapshot says at wall-clock time `wall`. Raises KeyError, TypeError or ValueError with why."""
    if data["version"] != VERSION:
        raise ValueError(f"version {data['version']!r}, this release reads {VERSION}")
    age = wall - _time(data["saved_at"])
    if not -_SKEW_SECONDS <= age <= _SECONDS_MAX:
        raise ValueError(f"saved {age:.0f} s ago")
    state, round_ = data["state"], data["round"]
    if state not in (CLOSED, OPEN, HALF_OPEN, ISOLATED):
        raise ValueError(f"state {state!r}")
    if isinstance(round_, bool) or not isinstance(round_, int) or round_ < 0:
        raise ValueError(f"round {round_!r}")
    left = max(_time(data["open_until"]) - wall, 0.0) if state == OPEN else 0.0
    isolations = [
        (str(one["reason"])[:REASON_MAX], min(_time(one["until"]) - wall, ISOLATE_SECONDS_MAX))
        for one in data["isolations"]
    ]
    return Kept(state, round_, left, tuple(one for one in isolations if one[1] > 0))


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:
        raise ValueError(f"{value!r} is not a time")
    return float(value)
