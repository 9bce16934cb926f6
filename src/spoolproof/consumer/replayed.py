"""The dead letter that a replay came from.

A foreign message may be known under another type or id once its release can read it, and its dead letter is still under
the first: it is found by its own id then, or it would be replaying for ever.
"""

from __future__ import annotations

from spoolproof.consumer.work import Work
from spoolproof.ids import is_uuid
from spoolproof.message import REPLAY_OF, message_key
from spoolproof.ports.dead_letters import DeadLetterRecord, DeadLetters, DeadLetterState
from spoolproof.ports.transaction import StoreTransaction


async def recorded_otherwise(dead_letters: DeadLetters, work: Work) -> DeadLetterRecord | None:
    """Return the dead letter of a replay, if it has the message under another key. Raises StoreUnavailable."""
    id = str(work.message.headers.get(REPLAY_OF, ""))
    details = await dead_letters.get(id) if is_uuid(id) else None
    consumers = (work.queue,) if work.admitted is None else work.consumers
    if details is None or details.record.consumer not in consumers:
        return None
    is_replaying = details.record.state is DeadLetterState.REPLAYING
    return details.record if is_replaying and message_key(details.record.message) != work.key else None


async def resolve(dead_letters: DeadLetters, tx: StoreTransaction, work: Work) -> None:
    """Resolve the dead letter of a message that was handled, whatever it is known under, as `tx` commits."""
    has_resolved = False
    for consumer in work.consumers:
        has_resolved |= await dead_letters.resolve(tx, consumer, work.message)
    before = None if has_resolved or not work.is_replay else await recorded_otherwise(dead_letters, work)
    if before is not None:
        await dead_letters.resolve(tx, before.consumer, before.message)
