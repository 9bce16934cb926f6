"""Which kinds of messages the broker takes no more, for people: log lines and issues.

A kind is a destination and a type. What sends it knows from its outcome to wait; here is only what it is waiting for.
"""

from __future__ import annotations

from spoolproof import limits
from spoolproof.brokers.events import KindAdmitted, KindBarred
from spoolproof.clock import Clock
from spoolproof.destination import Destination
from spoolproof.message import Outgoing
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded


class BarredKinds:
    """Remembers what was barred lately. Nobody may be left who sends a kind, so silence of some time lifts it too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._folded = Folded(clock)
        self._kinds: dict[tuple[Destination, str], tuple[str, float]] = {}
        self._harmless: set[tuple[Destination, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def holds(self, outgoing: Outgoing) -> bool:
        """Whether the last one of its kind was not taken, in a way that harms others on their way."""
        kind = (outgoing.destination, outgoing.message.type)
        return bool(self._kinds) and kind in self._kinds and kind not in self._harmless

    def bar(self, outgoing: Outgoing, detail: str, *, is_harmless: bool = False) -> None:
        """Note that one was not taken, and why. is_harmless: trying another one harms nobody else's."""
        kind = (outgoing.destination, outgoing.message.type)
        (self._harmless.add if is_harmless else self._harmless.discard)(kind)
        if kind not in self._kinds and len(self._kinds) >= limits.LOG_CAUSES_MAX:
            self._forget(next(iter(self._kinds)))
        self._kinds[kind] = (detail, self._clock.monotonic())
        self._folded.emit(KindBarred(destination=str(kind[0]), type=kind[1], error=detail))

    def confirm(self, outgoing: Outgoing) -> None:
        """Note that one was taken."""
        kind = (outgoing.destination, outgoing.message.type)
        if kind in self._kinds:
            self._forget(kind)
            self._folded.over(KindBarred, str(kind[0]), kind[1])
            emit(KindAdmitted(destination=str(kind[0]), type=kind[1]))

    def issues(self) -> list[str]:
        """Return a sentence for each, of the newest few."""
        since = self._clock.monotonic() - limits.BARRED_KEPT_SECONDS
        for kind in [kind for kind, (_, at) in self._kinds.items() if at < since]:
            self._forget(kind)
        newest = list(self._kinds.items())[-limits.BARRED_ISSUES_MAX :]
        return [f"{type} to {destination} waits: {detail}" for (destination, type), (detail, _) in newest]

    def _forget(self, kind: tuple[Destination, str]) -> None:
        del self._kinds[kind]
        self._harmless.discard(kind)
