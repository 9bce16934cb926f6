"""What keeps count for one policy, or for one key of it, and the pipeline through its parts."""

from __future__ import annotations

from spoolproof.policies.call import Guard
from spoolproof.policies.machines.adaptive import AdaptiveLimit
from spoolproof.policies.machines.budget import Cooldown
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.counts import Counts
from spoolproof.policies.machines.memory import Memory
from spoolproof.policies.machines.slots import Slots
from spoolproof.policies.machines.tokens import Tokens
from spoolproof.policies.parts.limits import Adaptive, Bulkhead
from spoolproof.policies.parts.ranges import Settings
from spoolproof.policies.running.pipeline import Pipeline, Shared, build

_LOOK_SECONDS = 1.0  #: a mode changed by a reload is no transition, of which one would be told


class Machines:
    """The state of one policy and key. Settings are laid on with `configure`, which keeps it."""

    __slots__ = (
        "_key",
        "_name",
        "circuit",
        "cooldown",
        "counts",
        "deadline_seconds",
        "last_reset",
        "memory",
        "pipeline",
        "slots",
        "timeout_seconds",
        "tokens",
    )

    def __init__(self, name: str, key: str | None) -> None:
        self._name = name
        self._key = key
        self.circuit: Circuit | None = None
        self.slots: Slots | None = None
        self.tokens: Tokens | None = None
        self.cooldown = Cooldown(name, key)
        self.counts = Counts()
        self.memory = Memory()
        self.last_reset: tuple[str, str, float] | None = None  #: id, reason, wall-clock seconds
        self.pipeline: Pipeline

    def configure(self, shared: Shared) -> None:
        """Take over settings: thresholds change in place, new parts start fresh, calls in flight end in the old
        pipeline."""
        settings, kinds = shared.settings, {part.kind for part in shared.parts}
        self.timeout_seconds = shared.limit_seconds("timeout")
        self.deadline_seconds = shared.limit_seconds("deadline")
        self.cooldown.configure(
            cooldown_seconds=settings.cooldown_seconds, cooldown_seconds_max=settings.cooldown_seconds_max
        )
        guards: dict[str, Guard] = {}
        if "breaker" in kinds:
            guards["breaker"] = self.circuit = self._circuit(settings, shared)
        if "bulkhead" in kinds:
            guards["bulkhead"] = self.slots = self._slots(settings, shared)
        if "rate_limit" in kinds:
            guards["rate_limit"] = self.tokens = self._tokens(settings)
        self.pipeline = build(shared, guards, self.cooldown, self.memory, self.counts)

    def _circuit(self, settings: Settings, shared: Shared) -> Circuit:
        if self.circuit is None:
            return Circuit(self._name, self._key, rule=shared.rule, random=shared.random, settings=settings)
        self.circuit.configure(rule=shared.rule, settings=settings)
        return self.circuit

    def _slots(self, settings: Settings, shared: Shared) -> Slots:
        limits = {name: getattr(settings, name) for name in Adaptive.settings}
        if self.slots is None:
            is_adaptive = any(isinstance(part, Bulkhead) and part.adaptive is not None for part in shared.parts)
            limit = AdaptiveLimit(self._name, self._key, **limits) if is_adaptive else None
            self.slots = Slots(self._name, self._key, running_max=settings.running_max, limit=limit)
        self.slots.configure(
            running_max=settings.running_max,
            queue_max=settings.queue_max,
            wait_seconds_max=settings.wait_seconds_max,
            limits=limits,
        )
        return self.slots

    def _tokens(self, settings: Settings) -> Tokens:
        rate = settings.rate or 1.0  # it has one: a RateLimit without is a fault
        if self.tokens is None:
            self.tokens = Tokens(self._name, self._key, rate=rate, per_seconds=settings.per_seconds)
        self.tokens.configure(
            rate=rate,
            per_seconds=settings.per_seconds,
            burst=settings.burst,
            wait_seconds_max=settings.wait_seconds_max,
            queue_max=settings.queue_max,
        )
        return self.tokens

    def is_closed(self, now: float) -> bool:
        """Whether the breaker knows of no outage; so without one, and in mode `off`, where it learns nothing."""
        circuit = self.circuit
        return circuit is None or circuit.is_off or circuit.state(now) == "closed"

    def is_pinned(self, now: float) -> bool:
        """Whether forgetting this would forget an outage, an isolation or a cooldown.

        Asked under the lock of all keys, so it brings about no transition, of which somebody would be told there.
        """
        return self.holds(now) or (self.circuit is not None and self.circuit.admitted_share(now) == 0.0)

    def holds(self, now: float) -> bool:
        """The same, but for an outage whose time is over: only a call can tell whether it is, and nobody makes one."""
        return self.cooldown.until > now or (self.circuit is not None and self.circuit.holds(now))
