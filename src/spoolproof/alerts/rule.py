"""One thing that can be wrong, as data: what is looked at, from where on it counts, the words for whoever is woken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from spoolproof.alerts.fact import Fact


class Severity(StrEnum):
    """page: somebody is needed now; warn: today."""

    PAGE = "page"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """fact: what is looked at. trigger: fires above it, or below it (is_below). clear: where it is well again; None: at
    the trigger. for_seconds: how long it must have been so; 0 where one look is proof. keep_seconds: how long it must
    have been well. when: it counts only where this fact is above 0. muted_by: rules that tell of the cause while they
    fire, `Name:db` and `Name:broker` for one dependency alone. what, safe, remedy: a sentence each, with the labels and
    {value} in braces; remedy ends in a command."""

    name: str
    severity: Severity
    fact: Fact
    trigger: float
    clear: float | None = None
    is_below: bool = False
    for_seconds: float = 0.0
    keep_seconds: float = 0.0
    when: Fact | None = None
    muted_by: tuple[str, ...] = ()
    what: str
    safe: str
    remedy: str

    @property
    def snake(self) -> str:
        """The name as settings have it: `outbox_pending`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower()

    @property
    def bound(self) -> str:
        """What the trigger is called in settings."""
        return "below" if self.is_below else "above"

    @property
    def clears_at(self) -> float:
        """Where it is well again."""
        return self.trigger if self.clear is None else self.clear

    def is_bad(self, value: float) -> bool:
        """Whether a value is beyond the trigger."""
        return value < self.trigger if self.is_below else value > self.trigger

    def is_well(self, value: float) -> bool:
        """Whether a value has come back far enough."""
        return value >= self.clears_at if self.is_below else value <= self.clears_at

    def moved(self, trigger: float | None, clear: float | None, **more: object) -> Rule:
        """Return the rule with other numbers; where only the trigger is another one, the clear line keeps its ratio."""
        if clear is None and self.clear is not None and trigger is not None and self.trigger:
            clear = self.clear * trigger / self.trigger
        found = {"trigger": trigger, "clear": clear, **more}
        return replace(self, **{name: value for name, value in found.items() if value is not None})  # type: ignore[arg-type]

    def words(self, labels: Mapping[str, str], value: float) -> dict[str, str]:
        """Return the three sentences."""
        shown = {**labels, "value": f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"}
        return {name: getattr(self, name).format_map(shown) for name in ("what", "safe", "remedy")}

    def promql(self, bound: float) -> str:
        """Return for Prometheus that the fact is beyond a bound."""
        text = f"{self.fact.promql()} {'<' if self.is_below else '>'} {bound:.12g}"
        if self.when is None:
            return text
        on = ", ".join(("job", *self.fact.labels))
        return f"({text}) and on({on}) ({self.when.promql()} > 0)"
