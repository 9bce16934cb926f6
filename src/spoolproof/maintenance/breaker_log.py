"""Tells of breakers that open and close, and remembers which are not closed.

Called at each transition, on whatever thread made it. A breaker whose probes fail opens again every few seconds for as
long as an outage lasts; that is one line a minute, and its closing ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from spoolproof.clock import Clock
from spoolproof.maintenance.events import BreakerClosed, BreakerHalfOpened, BreakerIsolated, BreakerOpened
from spoolproof.policies import Policy
from spoolproof.policies.events import BreakerChanged
from spoolproof.telemetry.events import Event, emit
from spoolproof.telemetry.folding import Folded

Name = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class _NotClosed:
    """reason: why it left closed, or opened again. since: when it left closed. observed: it only counts what it would
    have refused."""

    state: str
    reason: str
    since: datetime
    until: datetime | None
    observed: bool


class BreakerLog:
    """The breakers of one process, as its log and its health show them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._folded = Folded(clock)
        self._not_closed: dict[Name, _NotClosed] = {}

    def changed(self, policy: Policy, change: BreakerChanged) -> None:
        """Note a transition."""
        self._note(policy, change.new, change.reason, observed=change.observed)

    def found(self, policy: Policy) -> None:
        """Note a breaker that was not closed when it was first looked at: kept from before a restart, or just made."""
        self._note(policy, policy.state, "it was so before it was watched", observed=not policy.gates)

    def gone(self, name: Name) -> None:
        """Forget a breaker that is no more."""
        self._not_closed.pop(name, None)

    def state_of(self, policy: Policy) -> str:
        """Return the state it was last told to be in; asking the breaker itself could be what moves it."""
        one = self._not_closed.get((policy.name, policy.key))
        return "closed" if one is None else one.state

    def issues(self) -> tuple[str, ...]:
        """Return a sentence for each that refuses calls, in the order in which they opened."""
        return tuple(
            f"breaker {_label(name)}: {one.state} since {_instant(one.since)}: {one.reason}"
            for name, one in list(self._not_closed.items())
            if not one.observed
        )

    def _note(self, policy: Policy, state: str, reason: str, *, observed: bool) -> None:
        name = (policy.name, policy.key)
        before = self._not_closed.get(name)
        now = self._clock.now()
        if state == "closed":
            self._not_closed.pop(name, None)
            seconds = 0.0 if before is None else (now - before.since).total_seconds()
            for kind in (BreakerOpened, BreakerHalfOpened, BreakerIsolated):
                self._folded.over(kind, _label(name))
            emit(BreakerClosed(policy=_label(name), seconds=seconds, reason=reason))
            return
        until = now + timedelta(seconds=policy.open_until_seconds) if state == "open" else None
        cause = before.reason if before is not None and state == "half_open" else reason
        one = _NotClosed(state, cause, now if before is None else before.since, until, observed)
        self._not_closed[name] = one
        effect = "calls are let through, it only observes" if observed else _EFFECTS[state]
        self._folded.emit(_event(state, _label(name), reason, until, effect))


_EFFECTS = {
    "open": "its calls are refused until then",
    "half_open": "a few calls find out whether it may close",
    "isolated": "its calls are refused until somebody releases it, or its time is over",
}


def _event(state: str, policy: str, reason: str, until: datetime | None, effect: str) -> Event:
    if until is not None:
        return BreakerOpened(policy=policy, reason=reason, until=_instant(until), effect=effect)
    kind = BreakerIsolated if state == "isolated" else BreakerHalfOpened
    return kind(policy=policy, reason=reason, effect=effect)


def _label(name: Name) -> str:
    policy, key = name
    return policy if key is None else f"{policy}[{key!r}]"  # whatever a user's key holds: a line stays one line


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
