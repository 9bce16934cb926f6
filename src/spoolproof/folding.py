"""Log lines of a trouble that comes again and again: the first at once, then one a minute with a count.

An outage meets every loop and every message several times a second. Each line is true and none is news; together they
hide the one that is.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable

from spoolproof import limits
from spoolproof.clock import Clock


class FoldedLog:
    """Writes to a logger, each cause at most once per minute.

    A cause is what makes two lines the same news: usually the event and what it is about, never an id or a number that
    differs each time. At most 1,000 causes are remembered, the newest. Several threads may share one: at worst a line
    too many is written.
    """

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._causes: dict[Hashable, tuple[float, int]] = {}  # when its last line was written, how many came since

    def warning(self, cause: Hashable, text: str, *args: object) -> bool:
        """Write a line at WARNING, or count it; True if it was written."""
        return self.log(logging.WARNING, cause, text, *args)

    def error(self, cause: Hashable, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Write a line at ERROR, or count it. exc_info: whose traceback goes with it."""
        self.log(logging.ERROR, cause, text, *args, exc_info=exc_info)

    def log(self, level: int, cause: Hashable, text: str, *args: object, exc_info: BaseException | None = None) -> bool:
        """Write a line, or count it: the next one of its cause then ends in `suppressed=n`. True if it was written."""
        now = self._clock.monotonic()
        written_at, suppressed = self._causes.pop(cause, (None, 0))
        if written_at is not None and now - written_at < limits.LOG_REPEAT_SECONDS:
            self._causes[cause] = (written_at, suppressed + 1)
            return False
        if len(self._causes) >= limits.LOG_CAUSES_MAX:
            self._causes.pop(next(iter(self._causes)), None)
        self._causes[cause] = (now, 0)
        if suppressed:
            text, args = f"{text} suppressed=%d", (*args, suppressed)
        self._logger.log(level, text, *args, exc_info=exc_info, stacklevel=3)
        return True

    def __contains__(self, cause: Hashable) -> bool:
        """Whether a line of this cause was written and its trouble has not been told to be over."""
        return cause in self._causes

    def over(self, cause: Hashable) -> int:
        """Forget a cause: its trouble has ended, and its next line is news. Returns how many lines were not written."""
        return self._causes.pop(cause, (0.0, 0))[1]
