"""Turns the parts of a policy and its machines into a pipeline. First part is outermost: reading order is running
order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from spoolproof.backoff import RandomSource
from spoolproof.policies.budget import Budget
from spoolproof.policies.circuit import Circuit
from spoolproof.policies.counts import Counts
from spoolproof.policies.deadline import DeadlineNode
from spoolproof.policies.fallback import Answers, Fallback, FallbackNode
from spoolproof.policies.hedge import Hedge, HedgeNode, Latencies
from spoolproof.policies.node import Guard, Node
from spoolproof.policies.part import Part
from spoolproof.policies.pipeline import Attempt, Gate, Judge, Segment
from spoolproof.policies.retry import Drain, Retry, RetryNode, RetrySettings
from spoolproof.policies.threads import Abandoned


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


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A compiled policy. root: runs a call. block: what guards a block of code instead of a function. breaker: the one
    that may refuse a call before anything else is done for it; None where something may answer in its place.

    run_seconds: the limit of each run of a block that may run again. whole_seconds: a limit around Retry, of all its
    runs together."""

    root: Node
    block: Attempt
    breaker: Circuit | None
    run_seconds: float | None
    whole_seconds: float | None
    retry: RetryNode | None
    deadline: DeadlineNode | None


@dataclass(slots=True)
class Memory:
    """What nodes remember of a dependency; it outlives the pipeline, which a reload builds anew."""

    answers: Answers | None = None
    latencies: Latencies | None = None


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
