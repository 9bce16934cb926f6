"""The bell on SQLite: at once within the process; another process's commit is seen by polling `PRAGMA data_version`.

The poll runs only while somebody waits. A ring remembered while nobody waits ends the next wait.
"""

from __future__ import annotations

import asyncio

from spoolproof import limits
from spoolproof.errors import StoreUnavailable
from spoolproof.sqlite import Database


class SqliteWakeUp:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._rung = asyncio.Event()
        self._seen = -1

    def notify(self) -> None:
        self._rung.set()

    async def wait(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                while not (self._rung.is_set() or await self._has_foreign_commit()):
                    await self._until_rung(limits.POLL_FIRST_SECONDS)
        except TimeoutError:
            return False
        self._rung.clear()
        return True

    async def _until_rung(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return

    async def _has_foreign_commit(self) -> bool:
        try:
            version = await self._database.data_version()
        except StoreUnavailable:
            return False  # a hint only: whoever waits finds out by its next statement
        seen, self._seen = self._seen, version
        return version != seen and seen != -1
