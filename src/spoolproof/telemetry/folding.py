"""Events of a trouble that comes again and again: the line of the first at once, then one a minute with a count.

An outage meets every loop and every message several times a second. Each line is true and none is news; together they
hide the one that is. Every one of them is counted by its metric and heard by who listens.
"""

from __future__ import annotations

from collections.abc import Hashable

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.telemetry.events import Event, count, write


class Folded:
    """Tells of events, each cause with a line at most once per minute.

    A cause is an event and the fields it names in `folds`. At most 1,000 causes are remembered, the newest. Several
    threads may share one: at worst a line too many is written.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._causes: dict[Hashable, tuple[float, int]] = {}  # when its last line was written, how many came since

    def emit(self, event: Event, *, error: BaseException | None = None, level: int | None = None) -> bool:
        """Tell of it; True if that wrote a line. The next line of its cause ends in `suppressed=n`."""
        count(event)
        cause = (event.name, *(getattr(event, field) for field in event.folds))
        now = self._clock.monotonic()
        written_at, suppressed = self._causes.pop(cause, (None, 0))
        if written_at is not None and now - written_at < limits.LOG_REPEAT_SECONDS:
            self._causes[cause] = (written_at, suppressed + 1)
            return False
        if len(self._causes) >= limits.LOG_CAUSES_MAX:
            self._causes.pop(next(iter(self._causes)), None)
        self._causes[cause] = (now, 0)
        write(event, error, level, suppressed)
        return True

    def has_told(self, kind: type[Event], *values: Hashable) -> bool:
        """Whether a line of this cause was written and its trouble has not been told to be over."""
        return (kind.name, *values) in self._causes

    def over(self, kind: type[Event], *values: Hashable) -> int:
        """Forget a cause: its trouble has ended, and its next line is news. Returns how many lines were not written."""
        return self._causes.pop((kind.name, *values), (0.0, 0))[1]
