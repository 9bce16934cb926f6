"""The two loops of the process that leads: one takes runs forward, one checks marked keys.

The lease is for economy. A run's steps are guarded by its version; a check may run twice when a process that stood
still wakes up, and must stand that, as every check does that ends in a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import Conflict, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.lifecycle.membership import Holding
from spoolproof.policies import events as policy_events
from spoolproof.ports.reconciliations import Mark, Run
from spoolproof.ports.reconciliations import Phase as RunPhase
from spoolproof.reconciliation.events import CheckFailed, RunFailed
from spoolproof.reconciliation.reconciler import Checked, Declared, Reconciler
from spoolproof.reconciliation.runner import Runner
from spoolproof.telemetry.folding import Folded

LEAD = "reconcile"


class Runs(Loop):
    """Starts runs by the clock, and goes on with those that are unfinished. issues: for health, by reconciler.
    finished: when each finished its last run."""

    name = "reconciliation.runs"
    phase = Phase.HANDLE
    stall_seconds = None  # its readers are the user's

    def __init__(self, declared: Declared, runner: Runner, lead: Holding, *, clock: Clock) -> None:
        self._declared = declared
        self._runner = runner
        self._lead = lead
        self._clock = clock
        self._mine: dict[str, Run] = {}
        self._rests: dict[str, float] = {}  #: until when, after a failure
        self._folded = Folded(clock)
        self._since: datetime | None = None  #: when this process began to lead
        self.issues: dict[str, str] = {}
        self.finished: dict[str, datetime] = {}

    async def run_once(self) -> int:
        """Take each reconciler some steps forward if this process leads, then rest. Raises StoreUnavailable."""
        steps = 0
        if self._lead.fence_for(LEAD) is None:
            self._mine.clear()
            self.issues.clear()
            self.finished.clear()
            self._since = None
        else:
            for reconciler in self._declared.reconcilers.values():
                with suppress(Conflict):  # another process goes on with its run
                    steps += await self._turn(reconciler)
        await self._clock.sleep(limits.RECONCILIATION_LOOK_SECONDS)
        return steps

    async def _turn(self, reconciler: Reconciler) -> int:
        if self._rests.get(reconciler.name, 0.0) > self._clock.monotonic():
            return 0
        run = self._mine.pop(reconciler.name, None) or await self._due(reconciler)
        if run is None:
            return 0
        steps, until = 0, self._clock.monotonic() + limits.RECONCILIATION_TURN_SECONDS
        try:
            while run.finished_at is None and self._clock.monotonic() < until and self._lead.fence_for(LEAD):
                run = await self._runner.step(reconciler, run)
                steps += 1
        except (Unavailable, Conflict):
            raise
        except Exception as error:
            self._rests[reconciler.name] = self._clock.monotonic() + limits.RECONCILIATION_STALE_SECONDS
            self.issues[reconciler.name] = f"reconciliation {reconciler.name}: {error_line(error)}"
            self._folded.emit(RunFailed(reconciler=reconciler.name, id=run.id, error=error_line(error)))
            return steps
        self.issues.pop(reconciler.name, None)
        if run.finished_at is None:
            self._mine[reconciler.name] = run
        self._note(run)
        return steps

    def late(self) -> Iterator[str]:
        """Yield which reconcilers have finished no run for two of their periods, and so may find nothing any more."""
        for name, reconciler in self._declared.reconcilers.items():
            last, every = self.finished.get(name, self._since), reconciler.every_seconds
            past = 0.0 if last is None else (self._clock.now() - last).total_seconds()
            if every is not None and past > 2 * every:
                yield f"reconciliation {name}: no run has finished for {past:.0f} s, and one is due every {every:.0f} s"

    def _note(self, run: Run) -> None:
        if run.finished_at is not None and run.phase is RunPhase.FINISHED and not run.is_dry:
            self.finished[run.reconciler] = run.finished_at

    async def _due(self, reconciler: Reconciler) -> Run | None:
        """Return the run to go on with, or a new one if it is time."""
        newest = await self._runner.tools.runs.runs(self._runner.tools.service, reconciler.name, 1)
        now = self._clock.now()
        self._since = self._since or now
        for run in newest:
            self._note(run)
        if newest and newest[0].finished_at is None:
            run = newest[0]
            is_untouched = run.touched_at == run.started_at and run.is_forced  # asked for by a person
            is_stale = now - run.touched_at >= timedelta(seconds=limits.RECONCILIATION_STALE_SECONDS)
            return run if is_untouched or is_stale else None
        if newest and newest[0].phase is RunPhase.BRAKED:
            self.issues[reconciler.name] = (
                f"reconciliation {reconciler.name}: the last run stopped at the brake; spoolproof reconcile show "
                f"{newest[0].id}"
            )
        elif newest:
            self.issues.pop(reconciler.name, None)
        every = reconciler.every_seconds
        if every is None or (newest and now - newest[0].started_at < timedelta(seconds=every)):
            return None
        return await self._runner.start(reconciler.name)


class Checks(Loop):
    """Checks marked keys one after the other, and wakes those that waited for a dependency. marks: for the metric."""

    name = "reconciliation.checks"
    phase = Phase.HANDLE
    stall_seconds = None  # a check is the user's

    def __init__(
        self, declared: Declared, runner: Runner, lead: Holding, *, clock: Clock, random: RandomSource
    ) -> None:
        self._declared = declared
        self._tools = runner.tools
        self._lead = lead
        self._clock = clock
        self._random = random
        self._recovered: set[str] = set()
        self._folded = Folded(clock)
        self._unsubscribe: Callable[[], None] | None = None
        self.marks: Mapping[tuple[str, str], int] = {}

    async def start(self) -> None:
        """Listen to breakers."""
        self._unsubscribe = policy_events.subscribe(self._heard)

    async def stop(self) -> None:
        """Listen no more."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    async def run_once(self) -> int:
        """Check what is due if this process leads, then rest. Raises StoreUnavailable."""
        checked = 0
        await self._wake()  # also where another process leads: breakers are each process's own
        if self._lead.fence_for(LEAD) is None:
            self.marks = {}
        else:
            for mark in await self._tools.runs.due(self._tools.service, self._clock.now(), limits.CHECKS_AT_ONCE):
                if self._lead.fence_for(LEAD) is None:
                    break
                await self._check(mark)
                checked += 1
            self.marks = await self._tools.runs.marks(self._tools.service)
        if checked < limits.CHECKS_AT_ONCE:
            await self._clock.sleep(limits.RECONCILIATION_LOOK_SECONDS)
        return checked

    def _heard(self, event: policy_events.Event) -> None:
        # on any thread, and quick
        is_back = isinstance(event, policy_events.BreakerChanged) and event.new in ("half_open", "closed")
        if is_back and event.key is None:  # half open: a check may be the only call there is to be its probe
            self._recovered.add(event.policy)

    async def _wake(self) -> None:
        while self._recovered:
            policy = self._recovered.pop()
            for one in self._declared.checks.values():
                if one.waits_for == policy:
                    await self._tools.runs.wake(self._tools.service, one.name, self._clock.now())

    async def _check(self, mark: Mark) -> None:
        declared = self._declared.checks.get(mark.reconciler)
        if declared is None:  # of a release that is gone, or to come
            await self._later(mark, limits.CHECK_RETRY_SECONDS, "no check of that name in this release")
            return
        try:
            async with asyncio.timeout(limits.CHECK_SECONDS):
                is_settled = await declared.check(mark.key)
        except Unavailable as away:
            await self._later(mark, _backed_off(mark, declared), error_line(away))
        except Exception as error:
            seconds = _backed_off(mark, declared)
            told = CheckFailed(reconciler=mark.reconciler, key=mark.key, error=error_line(error), seconds=seconds)
            self._folded.emit(told)
            await self._later(mark, seconds, error_line(error))
        else:
            failpoint("reconciliation.after_check")
            if not is_settled or not await self._tools.runs.settle(self._tools.service, mark):
                await self._later(mark, declared.retry_seconds, "")

    async def _later(self, mark: Mark, seconds: float, note: str) -> None:
        seconds = spread_seconds(seconds, ratio=0.2, source=self._random)
        next_at = self._clock.now() + timedelta(seconds=seconds)
        await self._tools.runs.delay(self._tools.service, mark, next_at, note)


def _backed_off(mark: Mark, declared: Checked) -> float:
    return min(declared.retry_seconds, 2.0 ** min(mark.failures, 16))
