"""An operator's "leave it alone": what is isolated now, and what was released before its time, which other processes
have still to hear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spoolproof.ids import random_id
from spoolproof.policies import events

_RELEASED_MAX = 100  #: remembered; an older one ends in other processes at its time


class Isolation:
    """One of perhaps several; ends when released or at its time. id: the same in every process. until: when it ends.
    ends: when it would without a release. Both in monotonic seconds."""

    __slots__ = ("_release", "ends", "id", "reason", "until")

    def __init__(
        self, release: Callable[[Isolation, float], None], reason: str, until: float, id_: str | None = None
    ) -> None:
        self._release = release
        self.id = id_ or random_id()
        self.reason = reason
        self.until = until
        self.ends = until

    @property
    def is_released(self) -> bool:
        """Whether it ended before its time."""
        return self.until < self.ends

    def release(self, now: float) -> None:
        """End it. Idempotent."""
        self._release(self, now)


class Isolations:
    """Those of one breaker, in the order in which they were made. Used under its lock."""

    __slots__ = ("_released", "active")

    def __init__(self) -> None:
        self.active: tuple[Isolation, ...] = ()
        self._released: tuple[Isolation, ...] = ()

    def add(self, isolation: Isolation) -> None:
        """Isolate for one more reason."""
        self.active = (*self.active, isolation)

    def release(self, isolation: Isolation, now: float) -> None:
        """End one; does nothing if it has ended."""
        if isolation in self.active:
            isolation.until = now
            self._released = (*self._released, isolation)[-_RELEASED_MAX:]

    def release_all(self, now: float) -> None:
        """End all there are."""
        for isolation in self.active:
            self.release(isolation, now)
        self.active = ()

    def expire(self, now: float) -> bool:
        """Let go of those that are over; True if none is left."""
        self.active = tuple(one for one in self.active if one.until > now)
        return not self.active

    def until(self, now: float) -> float:
        """Return when the last of them ends; now if there is none."""
        return max((one.until for one in self.active), default=now)

    def find(self, id_: str, now: float) -> Isolation | None:
        """Return the one of this id, active or released before its time."""
        return next((one for one in self.known(now) if one.id == id_), None)

    def known(self, now: float) -> tuple[Isolation, ...]:
        """Return those that are active, and those released before a time that is still to come."""
        self._released = tuple(one for one in self._released if one.ends > now)
        return tuple(one for one in (*self.active, *self._released) if one.ends > now)


def isolation_faults(reason: object, seconds: object) -> list[str]:
    """Return what is wrong with an isolation that somebody asks for."""
    faults = []
    if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_MAX:
        faults.append(f"reason={reason!r}: 1 to {REASON_MAX} characters that tell the next person why")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= ISOLATE_SECONDS_MAX:
        faults.append(f"ttl_seconds={seconds!r}: a number from 1 to {ISOLATE_SECONDS_MAX:,}")
    return faults


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
