"""The owner of every task of a service.

Nothing else makes tasks: adapters and features get `spawn`. A turn that fails is logged and tried again with full
jitter up to 1 s; what is logged of it is news: an outage (`Unavailable`) at its beginning and its end, anything else
at the first failure of a kind and then once a minute. A task that ends with anything but an `Exception` (a failpoint in
mode raise) is fatal: `fatal` is set and the service ends without draining, as a crash would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from spoolproof import limits
from spoolproof.backoff import RandomSource, full_jitter_seconds
from spoolproof.caught import before, error_line, is_failure, tame
from spoolproof.clock import Clock
from spoolproof.errors import InvariantViolated, SpoolproofError, Unavailable
from spoolproof.lifecycle.events import (
    DrainIncomplete,
    LoopCancelled,
    LoopFailed,
    LoopRecovered,
    TaskDoesNotEnd,
    TaskFailed,
)
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.outages import Outages
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

_RETRY_FIRST_SECONDS = 0.1
_RETRY_MAX_SECONDS = 1.0  #: a database that is back is used again within 5 s, several loops deep


class Supervisor:
    """Runs loops and background tasks until told to end."""

    def __init__(
        self, clock: Clock, random: RandomSource, *, is_away: Callable[[Unavailable], bool] = lambda error: False
    ) -> None:
        """is_away: see `Outages`."""
        self._clock = clock
        self._random = random
        self._outages = Outages(clock, is_away)
        self._folded = Folded(clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: dict[Loop, asyncio.Task[None]] = {}
        self._quiet: set[Loop] = set()
        self._ticks: dict[Loop, float] = {}
        self.fatal: asyncio.Future[BaseException] | None = None

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` as a task of this service; the one door to `create_task`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def run(self, loop: Loop) -> None:
        """Start a loop and keep turning it. Raises what its start raises."""
        await loop.start()
        self._ticks[loop] = self._clock.monotonic()
        self._loops[loop] = self.spawn(self._turn(loop), loop.name)

    def quiet(self, loops: Sequence[Loop]) -> None:
        """Let these loops begin no further turn; the running one goes on."""
        self._quiet.update(loops)

    async def drain(self, loops: Sequence[Loop], seconds: float) -> None:
        """Let the turns of these loops end within `seconds`, then cut them off, then call each one's drain.

        Before the limit a turn ends by itself; what is cut off is cancelled and counts as never done. Ends within
        seconds of the limit, whatever hangs or fails.
        """
        self.quiet(loops)
        running = [self._loops[loop] for loop in loops if loop in self._loops]
        if running:
            _, late = await asyncio.wait(running, timeout=seconds)
            await _cut(late)
        for loop in loops:
            try:
                async with asyncio.timeout(limits.LOOP_DRAIN_SECONDS):
                    await loop.drain()
            except Exception as error:  # whatever it is, the others have to be drained, too
                emit(DrainIncomplete(loop=loop.name, error=error_line(error)))

    async def stop_loops(self) -> None:
        """Cancel every loop and stop it, newest first; other tasks go on. Idempotent."""
        turns = list(self._loops.items())
        self._loops.clear()
        self._ticks.clear()
        await _cut([task for _, task in turns])
        for loop, _ in reversed(turns):
            await loop.stop()

    async def stop(self) -> None:
        """Stop every loop and cancel every other task. Idempotent."""
        await self.stop_loops()
        await _cut(list(self._tasks))

    def stalled(self) -> list[str]:
        """Return the names of loops whose turn has run longer than they allow."""
        now = self._clock.monotonic()
        return [
            loop.name
            for loop, ticked in self._ticks.items()
            if loop.stall_seconds is not None and loop not in self._quiet and now - ticked > loop.stall_seconds
        ]

    async def _turn(self, loop: Loop) -> None:
        failures = 0
        causes: set[str] = set()
        while loop not in self._quiet:
            self._ticks[loop] = self._clock.monotonic()
            then = before()
            try:
                await loop.run_once()
            except Unavailable as error:
                failures += 1
                self._outages.met(loop.name, error)
            except BaseException as error:
                if not is_failure(error, then):
                    raise
                failures += 1
                causes.add(type(error).__name__)
                self._tell_failure(loop, error, failures)
            else:
                if causes:
                    self._tell_recovery(loop, causes, failures)
                self._outages.passed()
                failures = 0
                continue
            await self._clock.sleep(
                full_jitter_seconds(
                    failures, base_seconds=_RETRY_FIRST_SECONDS, cap_seconds=_RETRY_MAX_SECONDS, source=self._random
                )
            )

    def _tell_failure(self, loop: Loop, error: BaseException, failures: int) -> None:
        kind = type(error).__name__
        error = tame(error)
        is_bug = not isinstance(error, SpoolproofError) or isinstance(error, InvariantViolated)
        failed = LoopFailed(loop=loop.name, kind=kind, failures=failures, error=error_line(error))
        self._folded.emit(failed, error=error if is_bug else None)

    def _tell_recovery(self, loop: Loop, causes: set[str], failures: int) -> None:
        emit(LoopRecovered(loop=loop.name, failures=failures))
        for kind in causes:
            self._folded.over(LoopFailed, loop.name, kind)
        causes.clear()

    def _turn_on(self, ended: asyncio.Task[None]) -> None:
        """Let a loop go on whose task somebody else has cancelled; a handler can, and no loop ends for that."""
        for loop, task in self._loops.items():
            if task is ended and loop not in self._quiet:
                emit(LoopCancelled(loop=loop.name))
                self._loops[loop] = self.spawn(self._turn(loop), loop.name)
                return

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if task in self._loops.values():
                # later: an event loop that is being closed cancels everything, and has no later
                self._clock.call_at(self._clock.monotonic() + _RETRY_FIRST_SECONDS, lambda: self._turn_on(task))
            return
        error = task.exception()
        if error is None:
            return
        if isinstance(error, Exception):
            emit(TaskFailed(task=task.get_name()), error=error)
        elif self.fatal is not None and not self.fatal.done():
            self.fatal.set_result(error)


async def _cut(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended; one that does not end when told to holds up no exit."""
    for task in tasks:
        task.cancel()
    if tasks:
        _, left = await asyncio.wait(tasks, timeout=limits.CLOSE_SECONDS)
        for task in left:
            emit(TaskDoesNotEnd(task=task.get_name()))
