"""An operator's "leave it alone": what is isolated now, and what was released before its time, which other processes
have still to hear."""

from __future__ import annotations

from collections.abc import Callable

from spoolproof.ids import random_id
from spoolproof.policies.snapshots import ISOLATE_SECONDS_MAX, REASON_MAX

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
