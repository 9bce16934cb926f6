"""What a test of code with policies needs besides a clock: an open breaker, fewer attempts, a count of what runs, the
events, and policies that forget what the test did to them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from spoolproof.errors import PolicyUsageError
from spoolproof.policies import Policy, events
from spoolproof.policies.call import Call, Node
from spoolproof.policies.definition import Definition
from spoolproof.policies.functions import await_it, is_awaitable
from spoolproof.policies.judging.verdict import Verdict
from spoolproof.policies.machines.isolation import OPEN
from spoolproof.policies.running.pipeline import Shared
from spoolproof.testing.isolation import CircuitState, isolated, machines_of

__all__ = ["Inflight", "assert_inflight_max", "attempts_capped", "captured", "force_open", "isolated"]

# --- events ----------------------------------------------------------------------------------------------------------


@contextmanager
def captured(policy: Policy | None = None) -> Iterator[list[events.Event]]:
    """Give a list that gets every event of the block, in order; with `policy`, only those of that name."""
    kept: list[events.Event] = []

    def listen(event: events.Event) -> None:
        if policy is None or event.policy == policy.name:
            kept.append(event)

    unsubscribe = events.subscribe(listen)
    try:
        yield kept
    finally:
        unsubscribe()


# --- the breaker -----------------------------------------------------------------------------------------------------


@contextmanager
def force_open(policy: Policy, seconds: float = 60.0) -> Iterator[None]:
    """Have the breaker open for `seconds` of its clock, or until the block ends; then it is what it was, counts
    included.

    Once the time is over it probes, as after an outage. Raises PolicyUsageError where no breaker rejects calls, and
    ValueError for a time that is not above 0.
    """
    if not seconds > 0:
        raise ValueError(f"seconds={seconds!r}: above 0")
    circuit = policy.needs_circuit("open")
    if not policy.gates:
        raise PolicyUsageError(f"policy {policy.name!r}: its breaker rejects nothing (mode), so it cannot be opened")
    before = CircuitState(circuit)
    with circuit.lock:
        circuit._open_until = circuit._catch_up(policy.clock.monotonic()) + seconds
        circuit._change(OPEN, "opened by a test")
    circuit._changes.tell()
    try:
        yield
    finally:
        before.put_on(circuit)


# --- attempts --------------------------------------------------------------------------------------------------------


@contextmanager
def attempts_capped(policy: Policy, attempts: int = 1) -> Iterator[None]:
    """Let Retry make at most so many attempts, in all keys of the policy; functions it protects already obey too.

    Never more than its own setting. A `reload` inside the block ends the cap. Raises PolicyUsageError without a Retry.
    """
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ValueError(f"attempts={attempts!r}: a whole number from 1")
    definition = policy._definition
    own = definition.shared
    if policy.machines.pipeline.retry is None:
        raise PolicyUsageError(f"policy {policy.name!r} has no Retry to cap")
    capped = replace(own, settings=replace(own.settings, attempts=min(attempts, own.settings.attempts)))
    _put_on_retries(definition, own, capped)
    try:
        yield
    finally:
        _put_on_retries(definition, capped, own)


def _put_on_retries(definition: Definition, old: Shared, new: Shared) -> None:
    if definition.shared is old:
        definition.shared = new  # for the keys that are made from now on
    for machines in machines_of(definition):
        retry = machines.pipeline.retry
        if retry is not None and retry.settings is old.settings:
            retry.settings = new.settings


# --- calls in flight -------------------------------------------------------------------------------------------------


class Inflight:
    """Counts what runs. running: now. seen_max: the most at any time. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.running = 0
        self.seen_max = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the block."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, counted until its result is there."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.one():
                result = function(*args, **kwargs)
            return self._finish(result) if is_awaitable(result) else result

        return counted

    def around_sync(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is never awaited, counted until it returns."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.one():
                return function(*args, **kwargs)

        return counted

    async def _finish(self, result: Any) -> Any:
        with self.one():
            return await await_it(result)

    # --- a guard of the pipeline, for blocks, which have no function ---

    needs_time = False
    is_plain = False

    def enter(self, call: Call, now: float) -> object:
        """Count a run of a block."""
        self._begin()
        return True

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Count it no longer."""
        self._end()

    async def wait(self, call: Call) -> object:
        """Never needed: everybody is admitted."""
        return True

    def _begin(self) -> None:
        with self._lock:
            self.running += 1
            self.seen_max = max(self.seen_max, self.running)

    def _end(self) -> None:
        with self._lock:
            self.running -= 1


class _Counting:
    """Stands around a pipeline and counts the runs of the function inside: retries and hedges too, queues not."""

    def __init__(self, inner: Node, inflight: Inflight) -> None:
        self.inner = inner
        self._inflight = inflight

    async def run(self, call: Call) -> Any:
        around = self._inflight.around_sync if call.is_blocking else self._inflight.around
        call.function = around(call.function)
        return await self.inner.run(call)


@contextmanager
def assert_inflight_max(policy: Policy, n: int) -> Iterator[Inflight]:
    """Raise AssertionError at the end if more than `n` calls ever ran at once through the policy.

    Counts runs of functions and blocks that begin inside: each attempt and each hedge, nobody in a queue. Gives the
    count. A key of a policy counts apart: pass `policy.for_key(…)`.
    """
    inflight = Inflight()
    machines = policy.machines
    own = machines.pipeline
    block = copy.copy(own.block)
    block.guards = (*block.guards, inflight)
    block._enters = (*block._enters, (inflight.enter, inflight))
    counting = machines.pipeline = replace(own, root=_Counting(own.root, inflight), block=block)
    try:
        yield inflight
    finally:
        if machines.pipeline is counting:
            machines.pipeline = own
    if inflight.seen_max > n:
        raise AssertionError(
            f"policy {policy.name!r}: {inflight.seen_max} calls in flight at once, expected at most {n}"
        )
