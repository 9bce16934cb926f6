"""How much work is left out, from 0 (nothing) to 3, and why. Pure: what is known and the time are passed in.

::

    0 normal ─▶ 1 reduced ─▶ 2 minimal ─▶ 3 emergency      up: what asks for it holds at three evaluations, 5 s apart
      ◀───────────◀────────────◀──────────────              down: one at a time, after a minute below 80 % of it

Upwards it may skip levels: each was asked for long enough. Downwards each is held for half a minute at least. The third
is for exhaustion of this process alone: an outage elsewhere never refuses what the spool can take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

EVALUATE_SECONDS = 5.0
EVALUATIONS = 3
"""In a row, before a level is entered: a pause of the collector is no reason to refuse work."""
LEAVE_SECONDS = 60.0
HOLD_SECONDS = 30.0
LEAVE_SHARE = 0.8
LEVELS = (0, 1, 2, 3)
NAMES = ("normal", "reduced", "minimal", "emergency")

CRITICALITIES: Mapping[str, int] = MappingProxyType(
    {"critical_plus": 4, "critical": 3, "sheddable_plus": 2, "sheddable": 1}
)
"""By criticality, the level at which its work is refused; 4 is never."""

_LAG_SECONDS = {1: 0.25, 2: 0.5, 3: 1.0}
_FULLNESS = {1: 0.60, 2: 0.80, 3: 0.95}
_IN_FLIGHT = {1: 0.80, 2: 0.90, 3: 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What decides. critical, important: names of dependencies that are unhealthy. lag_seconds: how late the event loop
    was of late. fullness: of the spool. in_flight: HTTP requests, as a share of what is allowed; 0 where nothing is."""

    critical: tuple[str, ...] = ()
    important: tuple[str, ...] = ()
    lag_seconds: float = 0.0
    fullness: float = 0.0
    in_flight: float = 0.0


def asked_for(signals: Signals, share: float = 1.0) -> tuple[int, str]:
    """Return the highest level that something asks for, and what it is. share: of the numbers in the table."""
    for level in (3, 2, 1):
        if signals.lag_seconds > _LAG_SECONDS[level] * share:
            return level, f"the event loop is {signals.lag_seconds:.2g} s late"
        if signals.fullness > _FULLNESS[level] * share:
            return level, f"the spool is {signals.fullness:.0%} full"
        if signals.in_flight > _IN_FLIGHT[level] * share or (level == 3 and signals.in_flight >= share):
            return level, f"{signals.in_flight:.0%} of the requests allowed at once are running"
        if level == 2 and signals.critical:
            return level, f"{', '.join(signals.critical)} unhealthy"
        if level == 1 and signals.important:
            return level, f"{', '.join(signals.important)} unhealthy"
    return 0, "nothing"


class Levels:
    """The level of one process, as it decides itself."""

    def __init__(self) -> None:
        self.level = 0
        self.reason = "nothing"
        self._asked: deque[tuple[int, str]] = deque(maxlen=EVALUATIONS)
        self._entered_at = 0.0
        self._below_since: dict[int, float] = {}  # by level: since when nothing has asked for so much

    def evaluate(self, signals: Signals, now: float) -> int:
        """Decide, every 5 s; returns the level."""
        self._asked.append(asked_for(signals))
        still, _ = asked_for(signals, LEAVE_SHARE)
        for level in LEVELS[1:]:
            if still >= level:
                self._below_since.pop(level, None)
            else:
                self._below_since.setdefault(level, now)
        level, reason = min(self._asked)
        if len(self._asked) == EVALUATIONS and level > self.level:
            self._enter(level, reason, now)
        elif self.level and self._may_leave(now):
            self._enter(self.level - 1, self._asked[-1][1] if self.level > 1 else "nothing", now)
        return self.level

    def _may_leave(self, now: float) -> bool:
        below_since = self._below_since.get(self.level)
        is_over = below_since is not None and now - below_since >= LEAVE_SECONDS
        return is_over and now - self._entered_at >= HOLD_SECONDS

    def _enter(self, level: int, reason: str, now: float) -> None:
        self.level, self.reason, self._entered_at = level, reason, now
