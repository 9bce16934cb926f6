"""Keeping a dead letter, or closing the one there is."""

from __future__ import annotations

from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.store import Store


async def keep(store: Store, record: DeadLetterRecord) -> bool:
    """Keep a dead letter, durable on return. False if another copy of the message succeeded meanwhile: then there is
    nothing to give up, and one that a replay left `replaying` is resolved."""
    if await store.dead_letters.add(record):
        return True
    async with store.transaction() as tx:
        await store.dead_letters.resolve(tx, record.consumer, record.message)
    return False
