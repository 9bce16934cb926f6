"""Held keys on a database: the same steps on each, in the statements of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from spoolproof import limits
from spoolproof.message import earlier_key, message_key
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.held_keys import HeldKey, Hold
from spoolproof.ports.transaction import OwnTransaction, StoreTransaction
from spoolproof.stores.dead_letters import columns_of, dead_letter_of


class SqlHeldKeys(ABC):
    """Base of the adapters on SQL. statements: by name."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    @abstractmethod
    def _transaction(self) -> AbstractAsyncContextManager[OwnTransaction]: ...
    @abstractmethod
    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """Run a query outside any transaction; instants come as datetimes."""

    @abstractmethod
    def _stored(self, columns: Sequence[object]) -> Sequence[object]:
        """Return the columns of a dead letter as the database takes them."""

    @property
    @abstractmethod
    def _service(self) -> str: ...

    async def begin(self, consumer: str, key: str, message_key: str) -> None:
        async with self._transaction() as tx:
            await tx.execute(self._sql["begin"], consumer, key, message_key)

    async def is_held(self, consumer: str, key: str) -> bool:
        return bool(await self._read(self._sql["is_held"], consumer, key))

    async def hold_behind(self, record: DeadLetterRecord, most: int) -> Hold:
        consumer, message = record.consumer, record.message
        async with self._transaction() as tx:
            locked = await tx.fetch(self._sql["lock"], consumer, message.key)
            if not locked:
                return Hold.FREE
            (found,) = await tx.fetch(self._sql["count"], consumer, message.key, most)
            if found["messages"] >= most:
                return Hold.FULL
            known = await tx.fetch(self._sql["is_known"], consumer, message_key(message), earlier_key(message))
            if not known:
                columns = self._stored(columns_of(record, self._service)[:-1])
                await tx.execute(self._sql["hold"], *columns, locked[0]["last_seq"])
                await tx.execute(self._sql["note"], record.id)
            return Hold.HELD

    async def released(self, consumer: str, limit: int) -> Sequence[str]:
        return [row["ordering_key"] for row in await self._read(self._sql["released"], consumer, limit)]

    async def next(self, consumer: str, key: str) -> DeadLetterRecord | None:
        rows = await self._read(self._sql["next"], consumer, key)
        return dead_letter_of(rows[0]) if rows else None

    async def release(self, tx: StoreTransaction, consumer: str, key: str) -> bool:
        if not await tx.fetch(self._sql["lock"], consumer, key):
            return False
        # a statement of its own: it sees what committed while the lock was waited for
        return await tx.execute(self._sql["release"], consumer, key) == 1

    async def all(self, consumer: str, limit: int) -> Sequence[HeldKey]:
        rows = await self._read(self._sql["all"], consumer, limit, limits.HELD_MESSAGES_MAX)
        return [
            HeldKey(
                consumer=row["consumer"],
                key=row["ordering_key"],
                head=str(row["head"]),
                since=row["since"],
                messages=row["messages"],
            )
            for row in rows
        ]
