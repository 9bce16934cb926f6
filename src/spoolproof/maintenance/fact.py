"""What the processes of a service tell each other of a policy: isolations, resets and cooldowns.

Never verdicts: one bad node would open everyone's breaker. A process tells all it knows, again and again; what it hears
it takes over if it says more than it knew. So it does not matter in which order, how often, or from whom a fact comes:
an isolation is released once anybody released it, the latest reset counts, and the longest cooldown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from spoolproof.policies import Policy, Registry
from spoolproof.policies.machines.isolation import ID_MAX, ISOLATE_SECONDS_MAX, REASON_MAX, read_time, tell_ignored

ISOLATION, RESET, COOLDOWN = "isolation", "reset", "cooldown"


RESET_SECONDS = 600.0  #: for how long a reset is told: a process that was cut off for longer has seen more since


_AHEAD_SECONDS = 60.0  #: how far the clock of another machine may be ahead


_SKEW_SECONDS = 1.0  #: by how much two cooldowns differ at least, or clocks would have them grow in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """at: wall-clock seconds at which an isolation would end by itself, a cooldown ends, a reset was done. id: of the
    isolation or reset; empty for a cooldown, of which there is one. is_released: of an isolation."""

    kind: str
    policy: str
    key: str | None
    id: str = ""
    reason: str = ""
    at: float
    is_released: bool = False

    def is_over(self, wall: float) -> bool:
        """Whether nobody needs to hear of it any more, or nobody can have said it yet: a clock or a row is wrong, and a
        fact from far ahead would come again and again, and outrank all that is said after it."""
        kept, ahead = (RESET_SECONDS, 0.0) if self.kind == RESET else (0.0, ISOLATE_SECONDS_MAX)
        return not wall - kept < self.at <= wall + ahead + _AHEAD_SECONDS

    def is_news_to(self, other: Fact | None) -> bool:
        """Whether this says more than the other of the same thing, None if there is none."""
        if other is None:
            return True
        if self.kind == ISOLATION:
            return self.is_released and not other.is_released
        if self.kind == RESET:
            return (self.at, self.id) > (other.at, other.id)
        return self.at > other.at + _SKEW_SECONDS

    def released(self) -> Fact:
        """Return an isolation as somebody has ended it."""
        return replace(self, is_released=True)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready; `read_fact` takes it."""
        return asdict(self)


def read_fact(data: object) -> Fact:
    """Return the fact of a mapping somebody else has written. Raises TypeError or ValueError with why."""
    if not isinstance(data, Mapping):
        raise TypeError("it is not a mapping")
    if missing := sorted({field.name for field in fields(Fact)} - data.keys()):
        raise ValueError(f"it lacks {', '.join(missing)}")
    kind, key, is_released = data["kind"], data["key"], data["is_released"]
    if kind not in (ISOLATION, RESET, COOLDOWN):
        raise ValueError(f"kind {kind!r}")
    if not isinstance(is_released, bool):
        raise TypeError(f"is_released {is_released!r}")
    return Fact(
        kind=kind,
        policy=_text(data["policy"]),
        key=None if key is None else _text(key),
        id=_text(data["id"])[:ID_MAX],
        reason=_text(data["reason"])[:REASON_MAX],
        at=read_time(data["at"]),
        is_released=is_released,
    )


def facts_of(policy: Policy) -> list[Fact]:
    """Return what others should know of a policy, or of one key of it."""
    machines, clock = policy.machines, policy.clock
    now, wall = clock.monotonic(), clock.now().timestamp()
    name, key = policy.name, policy.key
    found = []
    if machines.circuit is not None:
        found += [
            Fact(
                kind=ISOLATION,
                policy=name,
                key=key,
                id=one.id,
                reason=one.reason,
                at=wall + one.ends - now,
                is_released=one.is_released,
            )
            for one in machines.circuit.isolations_known(now)
        ]
    reset = _reset_of(policy)
    if reset is not None and not reset.is_over(wall):
        found.append(reset)
    if machines.cooldown.until > now + _SKEW_SECONDS:
        found.append(Fact(kind=COOLDOWN, policy=name, key=key, at=wall + machines.cooldown.until - now))
    return found


def _reset_of(policy: Policy) -> Fact | None:
    reset = policy.machines.last_reset
    if reset is None:
        return None
    id_, reason, at = reset
    return Fact(kind=RESET, policy=policy.name, key=policy.key, id=id_, reason=reason, at=at)


def facts_in(registry: Registry) -> list[dict[str, Any]]:
    """Return what the other processes of a service should know: isolations, resets of the last ten minutes and
    cooldowns, JSON-ready, in wall time. Tell it again and again, it does no harm."""
    return [fact.to_dict() for policy in registry.all() for fact in facts_of(policy)]


def apply_facts(registry: Registry, facts: Iterable[object]) -> None:
    """Take over what another process told, in any order, any number of times.

    Never raises: a policy that is not here is passed over, and what cannot be read is, with RestoreIgnored.
    """
    for data in facts:
        try:
            fact = read_fact(data)
        except (TypeError, ValueError) as error:
            name = data.get("policy") if isinstance(data, Mapping) else None
            tell_ignored(name if isinstance(name, str) else "?", None, error)
            continue
        try:
            policy = registry.get(fact.policy)
        except KeyError:
            continue
        take_over(policy if fact.key is None else policy.for_key(fact.key), fact)


def take_over(policy: Policy, fact: Fact) -> None:
    """Do to a policy, or to one key of it, what another process has done."""
    machines, clock = policy.machines, policy.clock
    now, wall = clock.monotonic(), clock.now().timestamp()
    left = min(fact.at - wall, ISOLATE_SECONDS_MAX)
    if fact.is_over(wall):
        return
    if fact.kind == COOLDOWN:
        if left > machines.cooldown.until - now + _SKEW_SECONDS:
            machines.cooldown.start(now, left)
    elif machines.circuit is None:
        return
    elif fact.kind == ISOLATION:
        if fact.is_released:
            machines.circuit.release_alike(fact.id, now)
        else:
            machines.circuit.isolate_alike(fact.id, fact.reason, left, now)
    elif fact.is_news_to(_reset_of(policy)):
        machines.last_reset = (fact.id, fact.reason, fact.at)
        machines.circuit.reset(fact.reason, now, keeps_isolations=True)  # each release is a fact of its own


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
