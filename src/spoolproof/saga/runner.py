"""Takes up sagas that are due, frees those of dead processes, and runs each in a task of its own.

A turn is a claim, a sweep when it is time, and a wait until something ends, is started here, or a second is over. A
saga that sleeps is no task and no memory, just a row that the next claim does not touch.

Never here: remembering what is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.policies import Policy
from spoolproof.policies import events as policy_events
from spoolproof.ports.broker import Spawn
from spoolproof.ports.sagas import SagaRow, Sagas
from spoolproof.saga.attempt import Tools
from spoolproof.saga.definition import Definitions
from spoolproof.saga.events import RESCUED, Rescued, RunFailed
from spoolproof.saga.halt import Fenced
from spoolproof.saga.run import Run
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER

_AFTER_FAILURE_SECONDS = 60.0


class Runner(Loop):
    """The loop of sagas in one process."""

    name = "sagas"
    phase = Phase.HANDLE

    def __init__(
        self,
        service: str,
        sagas: Sagas,
        definitions: Definitions,
        tools: Tools,
        *,
        count: Callable[[], Awaitable[None]],
        claimed_max: int,
        process_id: Callable[[], UUID],
        spawn: Spawn,
        clock: Clock,
    ) -> None:
        self._service = service
        self._sagas = sagas
        self._definitions = definitions
        self._tools = tools
        self._count = count
        self._claimed_max = claimed_max
        self._process_id = process_id
        self._spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]] = spawn
        self._clock = clock
        self._running: dict[asyncio.Task[None], Run] = {}
        self._stirred = asyncio.Event()
        self._sweep_at = 0.0
        self._recovered: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def running(self) -> int:
        """How many sagas this process works on."""
        return len(self._running)

    def wake(self) -> None:
        """Look for sagas that are due now."""
        self._stirred.set()

    async def start(self) -> None:
        """Listen to breakers."""
        self._loop = asyncio.get_running_loop()
        self._unsubscribe = policy_events.subscribe(self._heard)

    async def run_once(self) -> int:
        """Claim, sweep, wait. Raises StoreUnavailable."""
        self._stirred.clear()
        if self._tools.is_draining():
            await self._ended()
            return 0
        if self._clock.monotonic() >= self._sweep_at:
            await self._sweep()
        claimed = 0
        room = self._claimed_max - len(self._running)
        if room > 0 and self._definitions.sagas and self._tools.is_trusted():
            rows = await self._sagas.claim(self._service, list(self._definitions.sagas), self._process_id(), room)
            for row in rows:
                self._begin(row)
            claimed = len(rows)
        if not claimed:
            await self._wait(limits.SAGA_POLL_SECONDS)
        return claimed

    async def drain(self) -> None:
        """Cut what still runs, and give everything back."""
        runs = dict(self._running)
        for task in runs:
            task.cancel()
        if runs:
            await asyncio.wait(runs)
        for run in runs.values():
            try:
                await run.release(0.0)
            except Fenced:
                continue

    async def stop(self) -> None:
        """Cut what still runs, and listen no more."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for task in list(self._running):
            task.cancel()

    # --- sagas -------------------------------------------------------------------------------------------------------

    def _begin(self, row: SagaRow) -> None:
        run = Run(self._tools, self._sagas, row, self._definitions.sagas[row.name, row.version])
        task = self._spawn(self._live(run, row), f"saga {row.name}")
        self._running[task] = run
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._stirred.set()

    async def _live(self, run: Run, row: SagaRow) -> None:
        try:
            await run.live()
        except Exception as error:
            emit(RunFailed(saga=row.name, id=row.saga_id, error=error_line(error)), error=error)
            try:
                await run.release(_AFTER_FAILURE_SECONDS)
            except (Fenced, StoreUnavailable):
                return

    async def _ended(self) -> None:
        if self._running:
            await asyncio.wait(list(self._running))
        else:
            await self._wait(limits.SAGA_POLL_SECONDS)

    async def _wait(self, seconds: float) -> None:
        timer = self._clock.call_at(self._clock.monotonic() + seconds, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            timer.cancel()

    # --- sweep -------------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        rescued = await self._sagas.rescue(self._service, limits.SAGA_CRASH_DELAYS_SECONDS)
        failpoint("saga.after_rescue")
        if rescued:
            METER.add(RESCUED, (), len(rescued))
            emit(Rescued(sagas=len(rescued), crashes_max=max(row.crashes for row in rescued)))
        await self._wake_recovered()
        self._sweep_at = self._clock.monotonic() + limits.SAGA_SWEEP_SECONDS
        await self._count()

    def _heard(self, event: policy_events.Event) -> None:
        # on any thread, and quick
        if isinstance(event, policy_events.BreakerChanged) and event.new == "closed" and event.key is None:
            self._recovered.add(event.policy)
            if self._loop is not None:
                with suppress(RuntimeError):  # its event loop is closed
                    self._loop.call_soon_threadsafe(self._look_now)

    def _look_now(self) -> None:
        self._sweep_at = 0.0
        self.wake()

    async def _wake_recovered(self) -> None:
        """Make due what waits for a dependency whose breaker has closed, and one saga where it only wants a probe."""
        for name, policy in self._policies().items():
            key = f"dependency:{name}"
            if policy.state == "half_open":  # all of them may be asleep, and then nobody else would be the probe
                await self._sagas.wake(self._service, key, 1)
            elif name in self._recovered:
                self._recovered.discard(name)
                if await self._sagas.wake(self._service, key, limits.SAGA_WAKE_ROWS_MAX) == limits.SAGA_WAKE_ROWS_MAX:
                    self._recovered.add(name)  # the rest at the next look

    def _policies(self) -> dict[str, Policy]:
        steps = [step for saga in self._definitions.sagas.values() for step in saga.steps.values()]
        return {step.policy.name: step.policy for step in steps if step.policy is not None}
