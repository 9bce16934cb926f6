"""What loops wait for, told once: a line when an outage begins, one a minute while it lasts, one when it is over.

A database that goes stops every loop that uses it, each several times a second; to whoever reads the log it is one
thing. It is over when no loop has met it for a while, one has passed a turn, and whoever asks the dependency itself
says so: a loop that had nothing to do in its turn proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import Unavailable
from spoolproof.lifecycle.events import OutageBegan, OutageEnded, OutageLasts
from spoolproof.telemetry.events import emit

_QUIET_SECONDS = limits.STATEMENT_SECONDS + 2.0  #: what a try may take to fail, and twice the longest wait before it


@dataclass(slots=True)
class _Outage:
    """error: the newest. failures: turns that met it."""

    error: Unavailable
    began_at: float
    met_at: float
    told_at: float
    failures: int = 0


class Outages:
    """Those of one process, by the class of their error."""

    def __init__(self, clock: Clock, is_away: Callable[[Unavailable], bool]) -> None:
        """is_away: whether what an error names is away, as far as is known without asking it now."""
        self._clock = clock
        self._is_away = is_away
        self._open: dict[type[Unavailable], _Outage] = {}

    def met(self, loop: str, error: Unavailable) -> None:
        """Note that a turn of this loop failed over it."""
        now = self._clock.monotonic()
        outage = self._open.get(type(error))
        if outage is None:
            outage = self._open[type(error)] = _Outage(error, began_at=now, met_at=now, told_at=now)
            emit(OutageBegan(loop=loop, error=str(error)))
        outage.error, outage.met_at = error, now
        outage.failures += 1
        if now - outage.told_at >= limits.LOG_REPEAT_SECONDS:
            outage.told_at = now
            seconds = now - outage.began_at
            emit(OutageLasts(seconds=seconds, failed_turns=outage.failures, error=str(error)))

    def passed(self) -> None:
        """Note that a turn of some loop did not fail."""
        if not self._open:
            return
        now = self._clock.monotonic()
        for kind, outage in list(self._open.items()):
            if now - outage.met_at >= _QUIET_SECONDS and not self._is_away(outage.error):
                del self._open[kind]
                seconds = outage.met_at - outage.began_at
                emit(OutageEnded(what=kind.__name__, seconds=seconds, failed_turns=outage.failures))
