"""The memory store: its ports on one Tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from spoolproof.clock import Clock
from spoolproof.errors import StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.bell import Bell
from spoolproof.stores.memory.dead_letters import MemoryDeadLetters
from spoolproof.stores.memory.inbox import MemoryInbox
from spoolproof.stores.memory.leases import MemoryLeases
from spoolproof.stores.memory.migrations import MemoryMigrations
from spoolproof.stores.memory.outbox import MemoryOutbox
from spoolproof.stores.memory.retention import MemoryRetention
from spoolproof.stores.memory.services import MemoryServices
from spoolproof.stores.memory.state import MemoryState
from spoolproof.stores.memory.tables import Tables
from spoolproof.stores.memory.transaction import MemoryTransaction, own
from spoolproof.stores.ports import PortedStore


class MemoryStore(PortedStore):
    """Implements `ports.store.Store`."""

    def __init__(self, *, clock: Clock, ids: Ids, outbox_rows_max: int, ports: Sequence[str] = ()) -> None:
        super().__init__("memory", ports)
        self.clock = clock
        self.ids = ids
        self.name = f"memory://{ids.uuid7()}"  # tells two stores of one process apart in messages
        self.services = MemoryServices(self)
        self.outbox = MemoryOutbox(self, rows_max=outbox_rows_max)
        self.inbox = MemoryInbox(self)
        self.dead_letters = MemoryDeadLetters(self)
        self.leases = MemoryLeases(self)
        self.state = MemoryState(self)
        self.migrations = MemoryMigrations()
        self.wakeup = Bell()
        self.retention = MemoryRetention(self, self.rules())
        self._tables = Tables()
        self._writer = asyncio.Lock()
        self._is_started = False

    async def start(self) -> None:
        self._is_started = True

    async def stop(self) -> None:
        self._is_started = False

    async def ping(self) -> None:
        self.committed()

    def is_conflict(self, error: BaseException) -> bool:
        return False

    def table(self, name: str) -> dict[Any, Any]:
        """Return a table's committed rows by key, to read."""
        return self.committed().table(name)

    def committed(self) -> Tables:
        """Return what readers see."""
        if not self._is_started:
            raise StoreUnavailable(f"{self.name} is not started")
        return self._tables

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        self.committed()
        async with self._writer:
            tx = MemoryTransaction(self, self.committed().copied())
            try:
                yield tx
                self.committed()  # stopped meanwhile: the COMMIT has nowhere to go
                self._tables = tx.tables
            finally:
                tx.is_open = False

    async def adopt(self, handle: object) -> StoreTransaction:
        return own(self, handle)
