"""What each consumer has already handled, so that a redelivery has no second effect.

The row is written first in the handler's transaction: it exists if and only if the effects do. A failure rolls back
both, so a replay is never mistaken for a duplicate.
"""

from __future__ import annotations

from typing import Protocol

from spoolproof.ports.retention import Rule
from spoolproof.ports.transaction import StoreTransaction

RETENTION = (
    Rule(table="inbox", key=("consumer", "message_id"), since="processed_at", seconds="inbox_retention_seconds"),
)


class Inbox(Protocol):
    """The dedupe record, one row per (consumer, key of the message).

    earlier: the key the release before gave the message; one recorded under it counts as well.
    """

    async def record(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> bool:
        """Note the message as handled in `tx`; True if it is new, False if it was handled before.

        A concurrent record of the same pair waits until the other transaction ends.
        """

    async def forget(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> None:
        """Note in `tx` that the message, which a person sends again, was not handled; nothing if it never was."""

    async def contains(self, consumer: str, key: str, earlier: str | None = None) -> bool:
        """Tell whether a committed transaction has recorded the message."""
