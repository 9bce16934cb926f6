"""A policy compiled: its parts as nodes, each around the next, the user's function in the middle.

Guards (breaker, rate limit, bulkhead) and the time limit between two other parts make one Segment: admitted in order,
left in reverse with one verdict. So a pipeline is as deep as it has parts that repeat or replace, not as it has parts.
There is one pipeline for calls of tasks and of threads: for the latter whatever waits blocks (`call.is_blocking`), so
that their coroutines never suspend (`call.run_now`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from spoolproof.backoff import RandomSource
from spoolproof.policies.call import Guard, Node
from spoolproof.policies.judging.classifier import Classifier
from spoolproof.policies.judging.verdict import Kind
from spoolproof.policies.machines.adaptive import AdaptiveLimit
from spoolproof.policies.machines.budget import Budget, Cooldown
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.memory import Abandoned, Answers, Counts, Latencies, Memory
from spoolproof.policies.machines.slots import Slots
from spoolproof.policies.machines.tokens import Tokens
from spoolproof.policies.parts.breaker import Shape
from spoolproof.policies.parts.limits import Adaptive, Bulkhead, Fallback, Hedge, Retry
from spoolproof.policies.parts.part import Part
from spoolproof.policies.parts.ranges import Settings
from spoolproof.policies.running.attempt import Attempt, Gate, Judge, Segment
from spoolproof.policies.running.fallback import FallbackNode
from spoolproof.policies.running.hedge import HedgeNode
from spoolproof.policies.running.retry import DeadlineNode, Drain, RetryNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every keyed child of a policy has in common. rule: of the breaker."""

    parts: Sequence[Part]
    settings: Settings
    rule: Shape
    classifier: Classifier
    budget: Budget
    drain: Drain
    random: RandomSource
    abandoned: Abandoned
    monotonic: Callable[[], float]

    def limit_seconds(self, kind: str) -> float | None:
        """Return the seconds of a Timeout or Deadline; None without that part."""
        if all(part.kind != kind for part in self.parts):
            return None
        return self.settings.timeout_seconds if kind == "timeout" else self.settings.deadline_seconds


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A compiled policy. root: runs a call. block: what guards a block of code instead of a function. breaker: the one
    that may refuse a call before anything else is done for it; None where something may answer in its place.

    run_seconds: the limit of each run of a block that may run again. whole_seconds: a limit around Retry, of all its
    runs together. is_deadline_outermost: it is not in `root`; whoever runs a call begins and ends it."""

    root: Node
    block: Attempt
    breaker: Circuit | None
    run_seconds: float | None
    whole_seconds: float | None
    retry: RetryNode | None
    deadline: DeadlineNode | None
    is_deadline_outermost: bool


def build(shared: Shared, guards: Mapping[str, Guard], cooldown: Cooldown, memory: Memory, counts: Counts) -> Pipeline:
    """Compile parts into a pipeline. guards: the machines by the kind of their part."""
    builder = _Builder(shared, cooldown, memory, counts)
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
    limit_seconds = min([*around, *within], default=None)
    block = nodes[-1]
    if not isinstance(block, Attempt) or (block.guards, block.timeout_seconds) != (all_guards, limit_seconds):
        block = builder.attempt(all_guards, limit_seconds)  # never run, only entered and left
    return Pipeline(
        root.inner if isinstance(root, DeadlineNode) else root,  # a level less for what most policies have
        block,
        _first_breaker(nodes),
        min(within, default=None),
        min(around, default=None),
        retry,
        next((node for node in nodes if isinstance(node, DeadlineNode)), None),
        isinstance(root, DeadlineNode),
    )


class _Builder:
    """Works from the function outwards; guards and a limit that meet share a segment."""

    def __init__(self, shared: Shared, cooldown: Cooldown, memory: Memory, counts: Counts) -> None:
        seconds = shared.limit_seconds("timeout") or shared.limit_seconds("deadline")
        self._judge = Judge(shared.classifier, cooldown, None if seconds is None else seconds / 2)
        self._shared = shared
        self._counts = counts
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
            seconds = self._shared.settings.timeout_seconds
            # one around Retry bounds all attempts together, and has only what its own code says
            own = part.given.get("timeout_seconds", seconds)
            self._timeout_seconds = seconds if self._inner is None else cast("float", own)
        elif part.kind != "chaos":  # chaos replaces the function itself
            self._inner = self._around(part, self.finish())

    def finish(self) -> Node:
        """Return the outermost node."""
        if self._inner is None or self._guards or self._timeout_seconds is not None:
            return self._close()
        return self._inner

    def _close(self) -> Node:
        guards, timeout_seconds = tuple(self._guards), self._timeout_seconds
        segment: Node
        if self._inner is None:
            segment = self.attempt(guards, timeout_seconds)
        else:
            segment = Segment(
                guards=guards,
                inner=self._inner,
                timeout_seconds=timeout_seconds,
                judge=self._judge,
                counts=self._counts,
                monotonic=self._shared.monotonic,
            )
        self._inner, self._guards, self._timeout_seconds = segment, [], None
        return segment

    def attempt(self, guards: tuple[Guard, ...], timeout_seconds: float | None) -> Attempt:
        """Return an innermost segment."""
        return Attempt(
            guards=guards,
            timeout_seconds=timeout_seconds,
            abandoned=self._shared.abandoned,
            judge=self._judge,
            counts=self._counts,
            monotonic=self._shared.monotonic,
        )

    def _around(self, part: Part, inner: Node) -> Node:
        shared, settings, memory = self._shared, self._shared.settings, self._memory
        match part:
            case Retry():
                return RetryNode(
                    inner,
                    settings,
                    allows_nesting=part.nested == "allow",
                    budget=shared.budget,
                    cooldown=self._judge.cooldown,
                    counts=self._counts,
                    drain=shared.drain,
                    random=shared.random,
                    on_discard=part.on_discard,
                )
            case Hedge():
                memory.latencies = memory.latencies or Latencies()
                return HedgeNode(
                    inner,
                    latencies=memory.latencies,
                    extra_max=settings.hedge_extra_max,
                    first_delay_seconds=settings.timeout_seconds / 4,
                    budget=shared.budget,
                    drain=shared.drain,
                    on_discard=part.on_discard,
                )
            case Fallback():
                memory.answers = memory.answers or Answers()
                return FallbackNode(inner, part.rungs, settings.rung_seconds, memory.answers, part.on_discard)
        return DeadlineNode(inner, settings.deadline_seconds)


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


_WELL = frozenset({"success", Kind.PERMANENT})  #: a dependency that refuses has answered
_BADLY = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT})


class Machines:
    """The state of one policy and key. Settings are laid on with `configure`, which keeps it."""

    __slots__ = (
        "_key", "_name", "circuit", "cooldown", "counts", "deadline_seconds", "last_reset", "memory", "pipeline",
        "slots", "timeout_seconds", "tokens",
    )  # fmt: skip

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

    def answered(self) -> tuple[int, int]:
        """Return how many attempts met a dependency that answered, and how many one that did not, ever; without a
        Breaker, which judges attempts, how many calls. What says nothing of it is in neither."""
        if self.circuit is not None:
            return self.circuit.successes_total, self.circuit.failures_total
        ended = self.counts.calls().items()
        well = sum(count for (result, _), count in ended if result in _WELL)
        return well, sum(count for (result, _), count in ended if result in _BADLY)

    def sample(self, most: int, seconds: list[float]) -> None:
        """See Attempt."""
        innermost = list(_chain(self.pipeline.root))[-1]
        if isinstance(innermost, Attempt):
            innermost.sample(most, seconds)

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
