"""What keeps count for one policy, or for one key of it, and the pipeline through its parts.

First part is outermost: reading order is running order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.errors import PolicyUsageError
from spoolproof.ids import random_id
from spoolproof.policies import events
from spoolproof.policies.call import Guard, Node
from spoolproof.policies.machines.adaptive import AdaptiveLimit
from spoolproof.policies.machines.budget import Budget, Cooldown
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.counts import Counts
from spoolproof.policies.machines.isolation import VERSION, cooldown_left, tell_ignored
from spoolproof.policies.machines.memory import Abandoned, Answers, Latencies, Memory
from spoolproof.policies.machines.slots import Slots
from spoolproof.policies.machines.tokens import Tokens
from spoolproof.policies.parts.fallback import Fallback
from spoolproof.policies.parts.limits import Hedge, Retry
from spoolproof.policies.parts.part import Part
from spoolproof.policies.running.fallback import FallbackNode
from spoolproof.policies.running.hedge import HedgeNode
from spoolproof.policies.running.pipeline import Attempt, Gate, Judge, Pipeline, Segment
from spoolproof.policies.running.retry import DeadlineNode, Drain, RetryNode, RetrySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every keyed child of a policy has in common. values: every setting, resolved."""

    parts: Sequence[Part]
    values: Mapping[str, Any]
    budget: Budget
    drain: Drain
    random: RandomSource
    retry: RetrySettings | None
    abandoned: Abandoned
    monotonic: Callable[[], float]


def build(shared: Shared, judge: Judge, guards: Mapping[str, Guard], memory: Memory, counts: Counts) -> Pipeline:
    """Compile parts into a pipeline. guards: the machines by the kind of their part."""
    builder = _Builder(shared, judge, memory, counts)
    for part in reversed(shared.parts):
        builder.add(part, guards)
    root = builder.finish()
    nodes = list(_chain(root))
    segments = [node for node in nodes if isinstance(node, Gate)]
    all_guards = tuple(guard for segment in segments for guard in segment.guards)
    retry = next((node for node in nodes if isinstance(node, RetryNode)), None)
    around: list[float] = []
    within: list[float] = []
    for segment in segments:
        if segment.timeout_seconds is not None:
            is_around = retry is not None and nodes.index(segment) < nodes.index(retry)
            (around if is_around else within).append(segment.timeout_seconds)
    limit = min([*around, *within], default=None)
    return Pipeline(
        root,
        builder.attempt(all_guards, limit, None),
        _first_breaker(nodes),
        min(within, default=None),
        min(around, default=None),
        retry,
        next((node for node in nodes if isinstance(node, DeadlineNode)), None),
    )


class _Builder:
    """Works from the function outwards; guards and a limit that meet share a segment."""

    def __init__(self, shared: Shared, judge: Judge, memory: Memory, counts: Counts) -> None:
        self._shared = shared
        self._counts = counts
        self._judge = judge
        self._common: Any = {"judge": judge, "counts": counts, "monotonic": shared.monotonic}
        self._memory = memory
        self._inner: Node | None = None
        self._guards: list[Guard] = []
        self._timeout_seconds: float | None = None

    def add(self, part: Part, guards: Mapping[str, Guard]) -> None:
        """Put one more part around what there is."""
        if part.kind in guards:
            self._guards.insert(0, guards[part.kind])
        elif part.kind == "timeout":
            if self._guards or self._timeout_seconds is not None:
                self._close()
            seconds = self._shared.values["timeout_seconds"]
            # one around Retry bounds all attempts together, and has only what its own code says
            own = part.given.get("timeout_seconds", seconds)
            self._timeout_seconds = seconds if self._inner is None else cast("float", own)
        elif part.kind != "chaos":  # chaos replaces the function itself
            self._inner = self._around(part, self._inside())

    def finish(self) -> Node:
        """Return the outermost node."""
        return self._inside()

    def _inside(self) -> Node:
        if self._inner is None or self._guards or self._timeout_seconds is not None:
            return self._close()
        return self._inner

    def _close(self) -> Node:
        guards, timeout_seconds = tuple(self._guards), self._timeout_seconds
        segment: Node
        if self._inner is None:
            segment = self.attempt(guards, timeout_seconds, self._shared.abandoned)
        else:
            segment = Segment(guards, self._inner, timeout_seconds=timeout_seconds, **self._common)
        self._inner, self._guards, self._timeout_seconds = segment, [], None
        return segment

    def attempt(self, guards: tuple[Guard, ...], timeout_seconds: float | None, abandoned: Abandoned | None) -> Attempt:
        """Return an innermost segment."""
        return Attempt(guards, timeout_seconds=timeout_seconds, abandoned=abandoned, **self._common)

    def _around(self, part: Part, inner: Node) -> Node:
        shared, values = self._shared, self._shared.values
        match part:
            case Retry() if shared.retry is not None:
                return RetryNode(
                    inner,
                    shared.retry,
                    budget=shared.budget,
                    cooldown=self._judge.cooldown,
                    counts=self._counts,
                    drain=shared.drain,
                    random=shared.random,
                    on_discard=part.on_discard,
                )
            case Hedge():
                self._memory.latencies = self._memory.latencies or Latencies()
                return HedgeNode(
                    inner,
                    latencies=self._memory.latencies,
                    extra_max=values["hedge_extra_max"],
                    timeout_seconds=values.get("timeout_seconds", 10.0),
                    budget=shared.budget,
                    drain=shared.drain,
                    on_discard=part.on_discard,
                )
            case Fallback():
                self._memory.answers = self._memory.answers or Answers()
                return FallbackNode(inner, part.rungs, values["rung_seconds"], self._memory.answers, part.on_discard)
        return DeadlineNode(inner, values["deadline_seconds"])


def _first_breaker(nodes: Sequence[Node]) -> Circuit | None:
    """Return the breaker that every call meets first, with no part around it that may do without an answer of it."""
    first = next((node for node in nodes if not isinstance(node, RetryNode | DeadlineNode)), None)
    guard = first.guards[0] if isinstance(first, Gate) and first.guards else None
    return guard if isinstance(guard, Circuit) else None


def _chain(root: Node) -> Iterator[Node]:
    node: Node | None = root
    while node is not None:
        yield node
        node = cast("Node | None", getattr(node, "inner", None))


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

    def configure(self, shared: Shared, judge_of: Any, rule: Any, mode: str) -> None:
        """Take over settings: thresholds change in place, new parts start fresh, calls in flight end in the old
        pipeline."""
        values = shared.values
        kinds = {part.kind for part in shared.parts}
        self.timeout_seconds: float | None = values["timeout_seconds"] if "timeout" in kinds else None
        self.deadline_seconds: float | None = values["deadline_seconds"] if "deadline" in kinds else None
        self.cooldown.configure(
            cooldown_seconds=values["cooldown_seconds"], cooldown_seconds_max=values["cooldown_seconds_max"]
        )
        self.circuit = self._circuit(values, rule, mode, shared) if "breaker" in kinds else None
        self.slots = self._slots(values, shared) if "bulkhead" in kinds else None
        self.tokens = self._tokens(values) if "rate_limit" in kinds else None
        guards: dict[str, Guard] = {}
        for kind, guard in (("breaker", self.circuit), ("bulkhead", self.slots), ("rate_limit", self.tokens)):
            if guard is not None:
                guards[kind] = guard
        self.pipeline = build(shared, judge_of(self.cooldown), guards, self.memory, self.counts)

    def _circuit(self, values: Mapping[str, Any], rule: Any, mode: str, shared: Shared) -> Circuit:
        if self.circuit is None:
            return Circuit(self._name, self._key, rule=rule, mode=mode, random=shared.random, settings=values)
        self.circuit.configure(rule=rule, mode=mode, settings=values)
        return self.circuit

    def _slots(self, values: Mapping[str, Any], shared: Shared) -> Slots:
        settings = {"queue_max": values["queue_max"], "wait_seconds_max": values["wait_seconds_max"]}
        limits = {name: values[name] for name in ("limit_initial", "limit_min", "limit_max")}
        if self.slots is None:
            is_adaptive = any(getattr(part, "adaptive", None) is not None for part in shared.parts)
            limit = AdaptiveLimit(self._name, self._key, **limits) if is_adaptive else None
            return Slots(self._name, self._key, running_max=values["running_max"], limit=limit, **settings)
        self.slots.configure(running_max=values["running_max"], limits=limits, **settings)
        return self.slots

    def _tokens(self, values: Mapping[str, Any]) -> Tokens:
        settings = {name: values[name] for name in ("rate", "per_seconds", "burst", "wait_seconds_max")}
        if self.tokens is None:
            return Tokens(self._name, self._key, queue_max=values["queue_max"], **settings)
        self.tokens.configure(queue_max=values["queue_max"], **settings)
        return self.tokens

    # --- the breaker -------------------------------------------------------------------------------------------------

    def state(self, now: float) -> str:
        """Return the breaker's state; closed without one."""
        return "closed" if self.circuit is None else self.circuit.state(now)

    def is_closed(self, now: float) -> bool:
        """Whether the breaker knows of no outage; so without one, and in mode `off`, where it learns nothing."""
        circuit = self.circuit
        return circuit is None or circuit.is_off or circuit.state(now) == "closed"

    def open_seconds(self, now: float) -> float:
        """Return how long an open breaker stays open; 0 when it is not."""
        circuit = self.circuit
        if circuit is None or circuit.state(now) not in ("open", "isolated"):
            return 0.0
        return circuit.retry_after(now)

    def is_pinned(self, now: float) -> bool:
        """Whether forgetting this would forget an outage, an isolation or a cooldown.

        Asked under the lock of all keys, so it brings about no transition, of which somebody would be told there.
        """
        return self.holds(now) or (self.circuit is not None and self.circuit.admitted_share(now) == 0.0)

    def holds(self, now: float) -> bool:
        """The same, but for an outage whose time is over: only a call can tell whether it is, and nobody makes one."""
        return self.cooldown.until > now or (self.circuit is not None and self.circuit.holds(now))

    def reset(self, reason: str, clock: Clock) -> None:
        """Close the breaker and forget what it knows. Raises PolicyUsageError without one."""
        circuit = self.needs_circuit("reset")
        wall = clock.now().timestamp()
        self.last_reset = (random_id(), reason, wall)
        circuit.reset(reason, clock.monotonic())

    def needs_circuit(self, what: str) -> Circuit:
        """Return the breaker. Raises PolicyUsageError without one."""
        if self.circuit is None:
            raise PolicyUsageError(f"policy {self._name!r} has no Breaker to {what}")
        return self.circuit

    async def wait_admission(self, clock: Clock, timeout_seconds: float) -> bool:
        """Return True as soon as a call would be admitted, False after `timeout_seconds`."""
        circuit = self.circuit
        if circuit is None:
            return True
        loop = asyncio.get_running_loop()
        ends_at = clock.monotonic() + timeout_seconds
        while not circuit.would_admit(clock.monotonic()):
            stirred: asyncio.Future[None] = loop.create_future()
            stir = _stir(stirred)
            unwatch = circuit.watch(_stir_from_afar(loop, stir))
            try:
                now = clock.monotonic()
                if circuit.would_admit(now):  # it changed before it was watched
                    return True
                if now >= ends_at:
                    return False
                timer = clock.call_at(min(ends_at, now + min(circuit.retry_after(now), _LOOK_SECONDS)), stir)
                try:
                    await stirred
                finally:
                    timer.cancel()
            finally:
                unwatch()
        return True

    # --- keep --------------------------------------------------------------------------------------------------------

    def snapshot(self, clock: Clock) -> dict[str, Any]:
        """Return breaker and cooldown in wall time."""
        now, wall = clock.monotonic(), clock.now().timestamp()
        data: dict[str, Any] = {"version": VERSION, "saved_at": wall}
        if self.circuit is not None:
            data |= self.circuit.snapshot(now, wall)
        left = self.cooldown.until - now
        data["cooldown_until"] = wall + left if left > 0 else None
        return data

    def restore(self, data: Any, clock: Clock) -> None:
        """Take over a snapshot, all of it or nothing; never raises."""
        now, wall = clock.monotonic(), clock.now().timestamp()
        try:
            left = cooldown_left(data, wall)
        except (KeyError, TypeError, ValueError) as error:
            tell_ignored(self._name, self._key, error)
            return
        if (self.circuit is None or self.circuit.restore(data, now, wall)) and left > 0:
            self.cooldown.start(now, left)


def _stir_from_afar(
    loop: asyncio.AbstractEventLoop, stir: Callable[[], None]
) -> Callable[[events.BreakerChanged], None]:
    def from_afar(_: events.BreakerChanged) -> None:
        loop.call_soon_threadsafe(stir)

    return from_afar


def _stir(future: asyncio.Future[None]) -> Any:
    def stir() -> None:
        if not future.done():
            future.set_result(None)

    return stir
