"""Which destinations the relay leaves alone for a while. Pure: time is passed in.

Two kinds. A destination that nacked is full, and a (destination, type) may be barred for a while: they rest 1 s,
doubling to 30 s, until a confirm. A (destination, type) with over 100 returns in 60 s has lost its queue: its rows
stay, and every 30 s one of them is tried; its confirm opens the pair again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from spoolproof import limits
from spoolproof.destination import Destination


@dataclass(slots=True)
class _Rest:
    until: float
    seconds: float


@dataclass(slots=True)
class _Returns:
    at: deque[float] = field(default_factory=lambda: deque(maxlen=limits.UNROUTABLE_PAUSE_COUNT + 1))
    probe_at: float | None = None  #: None while the pair is not paused
    is_probing: bool = False


class Pauses:
    """The relay's memory of who is full and who is missing."""

    def __init__(self) -> None:
        self._rests: dict[tuple[Destination, str | None], _Rest] = {}
        self._returns: dict[tuple[Destination, str], _Returns] = {}

    def rest(self, destination: Destination, type: str | None, now: float) -> None:
        """A publish was declined; several in one burst count once. type: None when it says so of the destination."""
        rest = self._rests.get((destination, type))
        if rest is None:
            seconds = limits.NACK_PAUSE_FIRST_SECONDS
            self._rests[destination, type] = _Rest(now + seconds, seconds)
        elif now >= rest.until:
            rest.seconds = min(limits.NACK_PAUSE_MAX_SECONDS, rest.seconds * 2)
            rest.until = now + rest.seconds

    def returned(self, destination: Destination, type: str, now: float) -> None:
        """A publish came back: no queue is bound for it."""
        pair = self._returns.setdefault((destination, type), _Returns())
        pair.at.append(now)
        recent = now - pair.at[0] <= limits.UNROUTABLE_PAUSE_WINDOW_SECONDS
        if pair.is_probing or (len(pair.at) > limits.UNROUTABLE_PAUSE_COUNT and recent):
            pair.probe_at = now + limits.UNROUTABLE_PROBE_SECONDS
            pair.is_probing = False

    def confirmed(self, destination: Destination, type: str) -> None:
        """A publish arrived: whatever was paused for it is open again."""
        if self._rests:
            self._rests.pop((destination, None), None)
            self._rests.pop((destination, type), None)
        if self._returns:
            self._returns.pop((destination, type), None)

    def unanswered(self, destination: Destination, type: str, now: float) -> None:
        """A publish got no answer; if it was the probe of its pair, the next one may be."""
        pair = self._returns.get((destination, type))
        if pair is not None and pair.is_probing:
            pair.is_probing = False
            pair.probe_at = now + 1.0

    def is_missing(self, destination: Destination, type: str) -> bool:
        """Whether the pair counts as having lost its queue."""
        pair = self._returns.get((destination, type))
        return pair is not None and pair.probe_at is not None

    def admit(self, destination: Destination, type: str, now: float) -> bool:
        """Whether a row may be sent now. True for a missing pair makes this row its probe."""
        if not self._rests and not self._returns:
            return True
        for resting in (None, type):
            rest = self._rests.get((destination, resting))
            if rest is not None and now < rest.until:
                return False
        pair = self._returns.get((destination, type))
        if pair is None or pair.probe_at is None:
            return True
        if pair.is_probing or now < pair.probe_at:
            return False
        pair.is_probing = True
        return True

    def paused(self, now: float) -> list[str]:
        """Return what a fetch should leave out: destinations, and `destination type` pairs."""
        resting = [
            str(destination) if type is None else f"{destination} {type}"
            for (destination, type), rest in self._rests.items()
            if now < rest.until
        ]
        missing = [
            f"{destination} {type}"
            for (destination, type), pair in self._returns.items()
            if pair.probe_at is not None and (pair.is_probing or now < pair.probe_at)
        ]
        return resting + missing
