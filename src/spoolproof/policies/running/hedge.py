"""A second attempt beside a slow first one; the first success wins.

It starts once the first has taken longer than 95 of 100 calls do, so it adds about one call in twenty and cuts the slow
tail. Losers are cancelled and awaited: none outlives the call. Source of the idea: "The Tail at Scale" (Dean and
Barroso, Communications of the ACM, 2013)."""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spoolproof.errors import PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call, Node
from spoolproof.policies.functions import OnDiscard
from spoolproof.policies.judging.verdict import Kind
from spoolproof.policies.machines.budget import Budget
from spoolproof.policies.machines.line import Bell
from spoolproof.policies.machines.memory import Latencies
from spoolproof.policies.running.retry import Drain
from spoolproof.policies.running.timeout import discard

_DELAY_SECONDS_MIN = 0.01


@dataclass(slots=True, eq=False)
class HedgeNode:
    """Races attempts of the rest against each other. first_delay_seconds: as long as too few calls were seen."""

    inner: Node
    _: KW_ONLY
    latencies: Latencies
    extra_max: int
    first_delay_seconds: float
    budget: Budget
    drain: Drain
    on_discard: OnDiscard | None

    async def run(self, call: Call) -> Any:
        """Return the first success, or raise the error of the last attempt to fail."""
        if call.is_blocking:  # a thread cannot be cancelled, so a loser could not be ended
            raise PolicyUsageError(
                f"policy {call.name!r}: Hedge is for async functions only; leave it out for sync ones"
            )
        if not call.is_idempotent:
            raise PolicyUsageError(
                f"policy {call.name!r}: a hedge makes a call twice; say idempotent=True or pass an idempotency_key"
            )
        race = _Race(self, call)
        try:
            return await race.run()
        except GeneratorExit:  # closed: nothing can be awaited any more
            race.abandon()
            raise
        finally:
            await race.end()

    def delay_seconds(self) -> float:
        """Return how long an attempt may take before another is launched beside it."""
        observed = self.latencies.percentile()
        return max(_DELAY_SECONDS_MIN, self.first_delay_seconds if observed is None else observed)


class _Race:
    """The attempts of one call."""

    def __init__(self, node: HedgeNode, call: Call) -> None:
        self._node = node
        self._call = call
        self._twins: dict[asyncio.Task[Any], Call] = {}
        self._seen: set[asyncio.Task[Any]] = set()
        self._launched = 0
        self._winner: asyncio.Task[Any] | None = None

    async def run(self) -> Any:
        node, call = self._node, self._call
        self._launch()
        delay = node.delay_seconds()
        while True:
            done = await self._wait(delay if self._may_launch() else None)
            for task in done:
                twin = self._twins[task]
                if task.cancelled():
                    raise asyncio.CancelledError
                if task.exception() is None and twin.verdict is None:
                    return self._won(task, twin)
            running = [task for task in self._twins if not task.done()]
            if not running:
                return self._lost()
            if not done and self._may_launch() and self._budget_allows():
                if events.listeners:
                    events.emit(
                        events.HedgeLaunched(call.name, call.key, attempt=self._launched + 1, delay_seconds=delay)
                    )
                self._launch()

    def _launch(self) -> None:
        self._launched += 1
        twin = self._call.fork()
        twin.attempts += self._launched - 1
        task = asyncio.get_running_loop().create_task(self._attempt(twin), name=f"spoolproof.hedge.{twin.name}")
        self._twins[task] = twin

    async def _attempt(self, twin: Call) -> Any:
        twin.now = twin.clock.monotonic()
        return await self._node.inner.run(twin)

    def _may_launch(self) -> bool:
        return self._launched <= self._node.extra_max and not self._node.drain.is_draining

    def _budget_allows(self) -> bool:
        if self._node.budget.spend(self._call.clock.monotonic()):
            return True
        self._launched = self._node.extra_max + 1  # no budget means no hedge, and no asking again
        return False

    async def _wait(self, seconds: float | None) -> list[asyncio.Task[Any]]:
        """Return the attempts that ended, first launched first; perhaps none when `seconds` have passed."""
        bell = Bell()
        unseen = [task for task in self._twins if task not in self._seen]
        for task in unseen:
            task.add_done_callback(bell.ring)  # soon if it is done already: tasks may start eagerly
        clock = self._call.clock
        try:
            await bell.wait(clock, None if seconds is None else clock.monotonic() + seconds)
        finally:
            for task in unseen:
                task.remove_done_callback(bell.ring)
        done = [task for task in unseen if task.done()]
        self._seen.update(done)
        return done

    def _won(self, task: asyncio.Task[Any], twin: Call) -> Any:
        call, node = self._call, self._node
        self._winner = task
        twin.now = call.clock.monotonic()
        self._join(twin)
        node.latencies.add(twin.now - twin.attempt_started_at)
        if task is not next(iter(self._twins)) and events.listeners:
            events.emit(events.HedgeWon(call.name, call.key, attempt=twin.attempts))
        return task.result()

    def _lost(self) -> Any:
        lost = list(self._twins.items())
        # one that we did not admit says nothing of the dependency, and must not hide what another one found out
        admitted = [(task, twin) for task, twin in lost if twin.verdict is None or twin.verdict.kind is not Kind.LOCAL]
        task, twin = (admitted or lost)[-1]
        for _, other in self._twins.items():
            self._call.is_unknown = self._call.is_unknown or other.is_unknown
        self._winner = task
        self._join(twin)
        return task.result()

    def _join(self, twin: Call) -> None:
        self._call.join(twin)
        self._call.attempts += len(self._twins)

    def abandon(self) -> None:
        """Cancel what runs, and leave it to its event loop."""
        for task in self._twins:
            task.cancel()
        self._twins.clear()

    async def end(self) -> None:
        """Cancel what still runs and wait for it; hand over what finished anyway."""
        losers = [task for task in self._twins if task is not self._winner]
        for task in losers:
            task.cancel()
        is_cancelled = False
        while pending := [task for task in losers if not task.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError:  # we were cancelled too: the losers still have to end before we do
                if is_cancelled or self._winner is None:  # not for the first time, and they have swallowed that
                    for task in pending:
                        task.cancel()
                is_cancelled = True
        if self._winner is None:  # we are cut off: what is known of the attempts is known of the call
            self._call.attempts += len(self._twins)
            self._call.has_started = any(twin.has_started for twin in self._twins.values())
        for task in self._twins if is_cancelled else losers:
            if not task.cancelled() and task.exception() is None:
                await discard(task.result(), self._node.on_discard, self._call)
        if is_cancelled:
            raise asyncio.CancelledError
