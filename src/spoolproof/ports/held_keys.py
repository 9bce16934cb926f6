"""Ordering keys whose messages wait until somebody has dealt with the one that failed, the head.

Later messages of a held key are dead letters in state `held`, in the order they came. The key is released once its head
is neither open nor replaying; then they run from the table, and the row of the key goes in the transaction of the last
one. That row is locked by whoever adds to a key and by whoever removes it, so that a message is either held behind the
key or comes after it.

Must never happen here: a held message without the row of its key; nobody would run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.transaction import StoreTransaction


class Hold(StrEnum):
    """What became of a message that was to be held. free: its key is not; full: there are as many as may be."""

    FREE = "free"
    HELD = "held"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A key that is held. messages: how many wait behind its head, counted up to the limit. head: the id of that."""

    consumer: str
    key: str
    head: str
    since: datetime
    messages: int


class HeldKeys(Protocol):
    """The table of held keys."""

    async def begin(self, consumer: str, key: str, message_key: str) -> None:
        """Hold a key for the dead letter of a message; one that is held already, for this one from now on."""

    async def is_held(self, consumer: str, key: str) -> bool:
        """Tell whether a key is held; no lock."""

    async def hold_behind(self, record: DeadLetterRecord, most: int) -> Hold:
        """Keep a message behind its held key, committed on return, unless `most` wait there. One that has a dead letter
        or was handled already is left as it is; that counts as held."""

    async def released(self, consumer: str, limit: int) -> Sequence[str]:
        """Return keys whose head is closed, longest held first."""

    async def next(self, consumer: str, key: str) -> DeadLetterRecord | None:
        """Return the message that was held first of those that still are, or None."""

    async def release(self, tx: StoreTransaction, consumer: str, key: str) -> bool:
        """Forget a key in `tx` if its head is closed and nothing is held behind it; False if it stays, or was not."""

    async def all(self, consumer: str, limit: int) -> Sequence[HeldKey]:
        """Return keys that are held, longest first."""
