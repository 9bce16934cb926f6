"""The breaker as it is declared: a rule for when to open, and how to come back. `circuit` is the machine."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias, Unpack

from spoolproof.policies.parts.part import Part
from spoolproof.policies.parts.ranges import BreakerSettings, faults_of

Shape: TypeAlias = "str | tuple[Any, ...]"
"""A rule without its numbers: `rate`, `consecutive`, `slow`, or ("any" | "all", shape, shape, …)."""

DEFAULT_SHAPE: Shape = ("any", "rate", "consecutive")


class Rule:
    """When a breaker opens. Combine with `|` (either) and `&` (both)."""

    def __init__(self, shape: Shape, given: dict[str, object], faults: list[str]) -> None:
        self.shape = shape
        self.given = {name: value for name, value in given.items() if value is not None}
        self.faults = [*faults, *faults_of(self.given)]

    def __or__(self, other: Rule) -> Rule:
        return self._joined("any", other)

    def __and__(self, other: Rule) -> Rule:
        return self._joined("all", other)

    def _joined(self, how: str, other: Rule) -> Rule:
        both = sorted(set(leaves(self.shape)) & set(leaves(other.shape)))
        faults = [f"rule: {kind} twice; at most one of each kind" for kind in both]
        joined = Rule((how, self.shape, other.shape), {**self.given, **other.given}, faults)
        joined.faults = [*self.faults, *other.faults, *faults]
        return joined


def leaves(shape: Shape) -> list[str]:
    """Return the kinds of rule in a shape."""
    return [shape] if isinstance(shape, str) else [leaf for part in shape[1:] for leaf in leaves(part)]


class Rate(Rule):
    """Opens when failures are at least `failure_rate` (0.5) of the calls in a window, of which there are at least
    `calls_min` (20). window_seconds: 30; or window_calls: of the last so many calls, instead of seconds."""

    def __init__(
        self,
        failure_rate: float | None = None,
        *,
        window_seconds: float | None = None,
        window_calls: int | None = None,
        calls_min: int | None = None,
    ) -> None:
        faults = []
        if window_seconds is not None and window_calls is not None:
            faults.append(f"window_calls={window_calls!r}: not together with window_seconds={window_seconds!r}")
        super().__init__(
            "rate",
            dict(
                failure_rate=failure_rate, window_seconds=window_seconds, window_calls=window_calls, calls_min=calls_min
            ),
            faults,
        )


class Consecutive(Rule):
    """Opens at `consecutive` (10) failures with no success between, all within `within_seconds` if that is given."""

    def __init__(self, consecutive: int | None = None, *, within_seconds: float | None = None) -> None:
        super().__init__("consecutive", {"consecutive": consecutive, "within_seconds": within_seconds}, [])


class Slow(Rule):
    """Opens when at least `slow_rate` of the calls in a window of `window_seconds` (30), at least `calls_min` (10),
    took `slow_seconds` or longer. A call is slow the moment it has run so long, whether it has ended or not."""

    def __init__(
        self,
        slow_rate: float,
        *,
        slow_seconds: float,
        window_seconds: float | None = None,
        calls_min: int | None = None,
    ) -> None:
        super().__init__(
            "slow",
            {
                "slow_rate": slow_rate,
                "slow_seconds": slow_seconds,
                "slow_window_seconds": window_seconds,
                "slow_calls_min": calls_min,
            },
            [],
        )


class Breaker(Part):
    """Stops calling a dependency that fails, and finds out carefully when it is back.

    rule: `Rate() | Consecutive()` unless given; its numbers may be given here too. open_seconds (5): the first time
    open; each failed probe makes it open_factor (2) times longer, up to open_seconds_max (60), ± open_jitter (0.2).
    probes_max (1): probes at a time when half open. probe_successes (3): how many close it. probe_lease_seconds: after
    which a hung probe has failed (30, or the timeout if longer). ramp_seconds (0): after closing, the share of admitted
    calls grows from 0.2 to 1. isolate_seconds (3,600): how long an operator's isolation lasts by default. mode:
    `enforce`; `observe` runs and tells but rejects nothing; `off`."""

    kind: ClassVar[str] = "breaker"
    settings: ClassVar[tuple[str, ...]] = tuple(BreakerSettings.__annotations__)

    def __init__(self, rule: Rule | None = None, **settings: Unpack[BreakerSettings]) -> None:
        faults = [
            f"{name}={value!r}: Breaker has no such setting"
            for name, value in settings.items()
            if name not in self.settings
        ]
        if rule is not None and not isinstance(rule, Rule):
            faults.append(f"rule={rule!r}: Rate, Consecutive or Slow, combined with | and &")
            rule = None
        self.shape = None if rule is None else rule.shape
        given = {name: value for name, value in settings.items() if name in self.settings}
        if rule is not None:
            faults += rule.faults
            twice = sorted(rule.given.keys() & given.keys())
            faults += [f"{name}={given[name]!r}: the rule says {rule.given[name]!r}; say it once" for name in twice]
            given = {**given, **rule.given} if not rule.faults else given
        super().__init__(given, faults)
