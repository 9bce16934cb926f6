"""The memory store's inbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory.transaction import own

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

INBOX = "inbox"

Key = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class _Handled:
    processed_at: datetime


class MemoryInbox:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def record(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> bool:
        inbox = own(self._store, tx).table(INBOX)
        if has_handled(inbox, consumer, key, earlier):
            return False
        inbox[consumer, key] = _Handled(self._store.clock.now())
        return True

    async def forget(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> None:
        inbox = own(self._store, tx).table(INBOX)
        for one in (key, earlier):
            inbox.pop((consumer, one), None)

    async def contains(self, consumer: str, key: str, earlier: str | None = None) -> bool:
        return has_handled(self._store.table(INBOX), consumer, key, earlier)


def has_handled(inbox: Mapping[Key, object], consumer: str, key: str | None, earlier: str | None) -> bool:
    """Tell whether a table of the inbox has the message."""
    return (consumer, key) in inbox or (consumer, earlier) in inbox
