"""The bell on PostgreSQL: at once within the process, by NOTIFY between processes.

One connection listens and rings; it belongs to nobody else, so a NOTIFY never sits in a business transaction, whose
commit it would serialise. Rings of 50 ms share one NOTIFY. A connection that is lost is opened again; until then the
relays poll. A ring remembered while nobody waits ends the next wait.
"""

from __future__ import annotations

import asyncio

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import StoreUnavailable
from spoolproof.ports.broker import Spawn
from spoolproof.stores.bell import Bell
from spoolproof.stores.postgres.connections import Connection, Pool
from spoolproof.stores.postgres.events import WakeUpLost
from spoolproof.telemetry.folding import Folded

_CHANNEL = "spoolproof_outbox"


class PostgresWakeUp(Bell):
    """bell: a pool of one; None keeps the ring within the process."""

    def __init__(self, bell: Pool | None, *, clock: Clock, spawn: Spawn) -> None:
        super().__init__()
        self._bell = bell
        self._clock = clock
        self._spawn = spawn
        self._to_ring = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._folded = Folded(clock)

    def start(self) -> None:
        if self._bell is not None and self._task is None:
            self._bell.open()
            self._task = self._spawn(self._run(self._bell), "store.wakeup")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._bell is not None:
            await self._bell.close()

    def notify(self) -> None:
        super().notify()
        self._to_ring.set()

    async def _run(self, bell: Pool) -> None:
        while True:
            try:
                async with bell.connection() as connection:
                    with bell.answers(connection):
                        await self._serve(connection)
            except StoreUnavailable as error:
                self._folded.emit(WakeUpLost(error=str(error)))
            await self._clock.sleep(limits.POLL_MAX_SECONDS)

    async def _serve(self, connection: Connection) -> None:
        own_pid = connection.get_server_pid()

        def heard(_: Connection, pid: int, channel: str, payload: object) -> None:
            if pid != own_pid:
                self._rung.set()

        connection.add_termination_listener(lambda _: self._to_ring.set())
        await connection.add_listener(_CHANNEL, heard)
        self._folded.over(WakeUpLost)
        while True:
            try:
                async with asyncio.timeout(limits.LISTEN_PROBE_SECONDS):
                    await self._to_ring.wait()
            except TimeoutError:
                await connection.execute("select 1", timeout=limits.LISTEN_PROBE_ANSWER_SECONDS)
                continue
            self._to_ring.clear()
            await connection.execute(f"notify {_CHANNEL}", timeout=limits.LISTEN_PROBE_ANSWER_SECONDS)
            await self._clock.sleep(limits.NOTIFY_INTERVAL_SECONDS)
