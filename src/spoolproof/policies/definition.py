"""What a policy was declared to be, resolved against its settings, and the keyed children that share it."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, Protocol
from weakref import WeakValueDictionary

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.errors import PolicyConfigError
from spoolproof.policies import events
from spoolproof.policies.judging.classifier import Classifier
from spoolproof.policies.machines.budget import Budget
from spoolproof.policies.machines.memory import Abandoned
from spoolproof.policies.parts.part import Part, alike
from spoolproof.policies.parts.ranges import name_faults
from spoolproof.policies.running.pipeline import Machines, Shared
from spoolproof.policies.running.retry import Drain
from spoolproof.policies.settings import config, lint
from spoolproof.policies.settings.sources import Sources

logger = logging.getLogger("spoolproof.policies")
NEEDS = ("critical", "important", "optional")
OVERFLOW_KEY = "(overflow)"


class Home(Protocol):
    """Where definitions are registered: `registry.Registry`."""

    drain_switch: Drain

    def register(self, definition: Definition) -> Definition:
        """Take a declaration in; returns the one that is in force."""

    def get(self, name: str) -> Any:
        """Return the policy of that name. Raises KeyError."""

    def another(self) -> Home:
        """Return an empty one."""


class _Default:
    registry: Home


default = _Default()  #: of this process; `registry` puts it here


class Member(Protocol):
    """The policy of a definition, or of one key of it."""

    machines: Machines


class Definition:
    """A declaration and what came of it. Made by Policy, kept by the registry."""

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        *,
        classify: Classifier,
        idempotent: bool | None,
        preset: str | None,
        sync: str,
        lint_ignore: frozenset[str],
        clock: Clock,
        random: RandomSource,
        registry: Home,
        need: str | None,
        response_seconds: float,
    ) -> None:
        faults = name_faults(name)
        if not parts or not all(isinstance(part, Part) for part in parts):
            faults.append(f"parts={parts!r}: one or more parts, such as Retry(3) or Timeout(10)")
        if not isinstance(classify, Classifier):
            faults.append(f"classify={classify!r}: a Classifier, such as Classifier().transient(Busy)")
        if idempotent is not None and not isinstance(idempotent, bool):
            faults.append(f"idempotent={idempotent!r}: True, False or not given")
        if preset is not None and not isinstance(preset, str):
            faults.append(f"preset={preset!r}: the name of a preset")
        if sync not in ("thread", "cooperative"):
            faults.append(f"sync={sync!r}: 'thread' or 'cooperative'")
        if need is not None and need not in NEEDS:
            faults.append(f"need={need!r}: {', '.join(map(repr, NEEDS))}, or None")
        if not isinstance(response_seconds, int | float) or not 0 < response_seconds < math.inf:
            faults.append(f"response_seconds={response_seconds!r}: seconds above 0")
        if faults:
            raise PolicyConfigError(faults, policy=name)
        self.name = name
        self.parts = tuple(parts)
        self.classify = classify
        self.idempotent = idempotent
        self.preset = preset
        self.sync = sync
        self.lint_ignore = lint_ignore
        self.clock = clock
        self.random = random
        self.registry = registry
        self.need = need
        self.response_seconds = response_seconds
        self.probe: Callable[[], Awaitable[object]] | None = None
        self.made_at = _place()
        self.chaos: Any = next((part for part in parts if part.kind == "chaos"), None)
        self.is_gating = False
        self._lock = threading.RLock()
        self._budget = Budget()
        self._abandoned = Abandoned()
        self._own: Machines | None = None
        self._children: OrderedDict[str, Member] = OrderedDict()
        self._used_at: dict[str, float] = {}
        self._alive: WeakValueDictionary[str, Member] = WeakValueDictionary()
        self._overflow: Member | None = None

    # --- settings ----------------------------------------------------------------------------------------------------

    def resolve(self, sources: Sources) -> tuple[config.Resolved, list[str]]:
        """Return the settings under `sources`, and every fault in them."""
        resolved = config.resolve(self.name, self.parts, sources, preset=self.preset)
        faults = [*resolved.faults]
        if not faults:
            faults = [f"{one.code}: {one.message}" for one in self._findings(resolved) if one.code.startswith("E")]
        return resolved, faults

    def _findings(self, resolved: config.Resolved) -> list[lint.Finding]:
        return lint.findings(self.parts, resolved.values, idempotent=self.idempotent, sync=self.sync)

    def accept(self, resolved: config.Resolved) -> None:
        """Put settings in force; every count, timer and isolation stays."""
        if self.is_gating and resolved.origins["ramp_seconds"] == "built-in":
            values = replace(resolved.values, ramp_seconds=10.0)
            resolved = replace(resolved, values=values, origins={**resolved.origins, "ramp_seconds": "gate"})
        self.resolved = resolved
        self.values = values = resolved.values
        self.findings = self._findings(resolved)
        self._budget.configure(budget_ratio=values.budget_ratio, budget_per_second_min=values.budget_per_second_min)
        self._abandoned.maximum = values.threads_abandoned_max if self.sync == "thread" else 0
        self.shared = Shared(
            parts=self.parts,
            settings=values,
            rule=resolved.rule,
            classifier=self.classify,
            budget=self._budget,
            drain=self.registry.drain_switch,
            random=self.random,
            abandoned=self._abandoned,
            monotonic=self.clock.monotonic,
        )
        with self._lock:
            machines = [child.machines for child in self._alive.values()]
            if self._overflow is not None:
                machines.append(self._overflow.machines)
            if self._own is not None:
                machines.append(self._own)
        for one in machines:
            one.configure(self.shared)

    def gate(self) -> None:
        """Ramp up after an outage, because a consumer's intake depends on this."""
        if not self.is_gating:
            self.is_gating = True
            self.accept(self.resolved)

    def warn(self) -> None:
        """Log every warning once, and what a stronger source hides."""
        for finding in self.findings:
            if finding.code.startswith("W") and finding.code not in self.lint_ignore:
                logger.warning("policies.lint policy=%s code=%s %s", self.name, finding.code, finding.message)
        if events.listeners:
            for shadowed in self.resolved.shadowed:
                events.emit(
                    events.SettingShadowed(
                        policy=self.name, setting=shadowed.setting, hidden=shadowed.hidden, by=shadowed.by
                    )
                )

    def check_function(self, function: Callable[..., Any], is_async: bool) -> None:
        """Refuse a function this policy cannot protect. Raises PolicyConfigError."""
        faults = [
            f"{one.code}: {one.message}"
            for one in lint.function_findings(self.parts, function, is_async=is_async)
            if one.code.startswith("E")
        ]
        if faults:
            raise PolicyConfigError(faults, policy=self.name)

    def explain(self) -> str:
        """Return the policy as text."""
        return lint.explain(self.name, self.parts, self.resolved, self.findings)

    def is_same_as(self, other: Definition) -> bool:
        """Whether another declaration means the same, so that both may be one policy."""
        return all(
            alike(one, two)
            for one, two in (
                (self.parts, other.parts),
                (self.classify.rules, other.classify.rules),
                ((self.idempotent, self.preset, self.sync), (other.idempotent, other.preset, other.sync)),
                ((self.need, self.response_seconds), (other.need, other.response_seconds)),
                (self.clock, other.clock),
            )
        )

    # --- keys --------------------------------------------------------------------------------------------------------

    def machines_of(self, key: str | None) -> Machines:
        """Return the machines of the policy itself, or new ones for a key."""
        with self._lock:
            if key is None and self._own is not None:
                return self._own
            machines = Machines(self.name, key)
            machines.configure(self.shared)
            if key is None:
                self._own = machines
            return machines

    def child(self, key: str, make: Callable[[str], Member]) -> Any:
        """Return the child for a key, made if need be; the one that all share when every child is pinned."""
        now = self.clock.monotonic()
        while True:
            has_room = key in self._children or self._make_room(now)
            with self._lock:
                child = self._alive.get(key)
                if child is not None and not has_room:
                    return child
                if not has_room:
                    self._overflow = self._overflow or make(OVERFLOW_KEY)
                    return self._overflow
                if key not in self._children and len(self._children) >= self.values.keys_max:
                    continue  # another thread has taken the room
                if child is None:
                    child = self._alive[key] = make(key)
                self._children[key] = child
                self._children.move_to_end(key)
                self._used_at[key] = now
                return child

    def _make_room(self, now: float) -> bool:
        """Let go of idle children, and of the one unused for longest if there are too many; False if none may go.

        One that waits for a probe goes when it is idle or there is no other: nobody calls it, so it would wait for
        ever, and dead keys would take the room of those that live."""
        most, idle = self.values.keys_max, self.values.key_idle_seconds
        with self._lock:
            oldest = next(iter(self._children), None)
            if oldest is None or (len(self._children) < most and now - self._used_at[oldest] < idle):
                return True
            kept = list(self._children.items())
        for key, child in kept:
            is_idle = now - self._used_at.get(key, now) >= idle
            if len(self._children) < most and not is_idle:
                return True
            if not (child.machines.holds(now) if is_idle else child.machines.is_pinned(now)):
                with self._lock:
                    self._forget(key)
        for key, child in kept:
            if len(self._children) < most:
                return True
            if not child.machines.holds(now):
                with self._lock:
                    self._forget(key)
        if len(self._children) < most:
            return True
        if events.listeners:
            events.emit(events.KeysExhausted(policy=self.name, kept=len(kept)))
        return False

    def _forget(self, key: str) -> None:
        # whoever still uses the child holds it, and `_alive` finds it again while they do: its counts are not lost
        self._children.pop(key, None)
        self._used_at.pop(key, None)

    def children(self) -> dict[str, Any]:
        """Return children by key: those that are kept, and of those that others still hold the ones that know of an
        outage, an isolation or a cooldown."""
        now = self.clock.monotonic()
        with self._lock:
            pinned = {key: child for key, child in self._alive.items() if child.machines.is_pinned(now)}
            return {**self._children, **pinned}


def _place() -> str:
    """Return where the policy is made: the line, and who called the function it is in, if that is a factory."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("spoolproof.policies"):
        frame = frame.f_back
    if frame is None:
        return "?"
    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    caller = frame.f_back
    if frame.f_code.co_name == "<module>" or caller is None:
        return place
    return f"{place} (called from {caller.f_code.co_filename}:{caller.f_lineno})"
