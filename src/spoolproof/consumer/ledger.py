"""What a handler keeps of each of its messages beside the inbox row: written with the end of the message, or before it.

One that succeeds or is parked is written in the transaction of its inbox row. A dead letter is durable first, and
written here before the ack: killed between the two, the message comes again.
"""

from __future__ import annotations

from typing import Protocol

from spoolproof.message import Message
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.transaction import StoreTransaction


class Ledger(Protocol):
    """The books of one handler. All but `settled` raise StoreUnavailable."""

    async def is_wanted(self, message: Message) -> bool:
        """Tell whether it shall still run; if not it is acked, and no inbox row says that it was handled."""

    async def succeeded(self, tx: StoreTransaction, message: Message, result: object, failed: int) -> None:
        """Write that the handler has returned this, in the transaction of the inbox row. failed: attempts before."""

    async def parked(self, tx: StoreTransaction, message: Message, review_id: str, question: str, failed: int) -> None:
        """Write that a person is asked about it, likewise."""

    async def failed(self, record: DeadLetterRecord) -> None:
        """Write that it is a dead letter, which is durable. Written twice, it is the same."""

    async def put_off(self, message: Message, error: str, failed: int, seconds: float) -> None:
        """Note why and when it runs again."""

    def settled(self, message: Message) -> None:
        """It has come to its end, which is durable."""
