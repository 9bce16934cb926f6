"""An operator's two verbs on a dead letter. Both name who did it and why, in the audit trail."""

from __future__ import annotations

from spoolproof.errors import Conflict, InvalidMessage, NotFound
from spoolproof.failpoints import failpoint
from spoolproof.ports.dead_letters import DeadLetterDetails
from spoolproof.ports.store import Store


async def find(store: Store, id: str) -> DeadLetterDetails:
    """Return a dead letter with its audit trail. Raises NotFound."""
    details = await store.dead_letters.get(id)
    if details is None:
        raise NotFound(f"there is no dead letter {id!r}; `spoolproof dlq ls` shows those there are")
    return details


async def replay(store: Store, id: str, *, actor: str, reason: str) -> None:
    """Send a dead letter again, to the consumer that gave up on it and to no other.

    Raises NotFound, or Conflict if it is not open (somebody else has just replayed or discarded it).
    """
    _check(actor, reason)
    failpoint("replay.before_move")
    moved = await store.dead_letters.replay(id, actor, reason)
    failpoint("replay.after_move")
    if not moved:
        details = await find(store, id)
        raise Conflict(f"dead letter {id} is {details.record.state}; only an open one can be replayed")
    store.wakeup.notify()


async def discard(store: Store, id: str, *, actor: str, note: str) -> None:
    """Close a dead letter for good; its content stays readable for 30 days. Raises NotFound or Conflict."""
    _check(actor, note)
    if not await store.dead_letters.discard(id, actor, note):
        details = await find(store, id)
        raise Conflict(f"dead letter {id} is {details.record.state}; only an open or replaying one can be discarded")


def _check(actor: str, reason: str) -> None:
    if not actor.strip():
        raise InvalidMessage("actor", actor, "say who does it")
    if not reason.strip():
        raise InvalidMessage("reason", reason, "say why; it is kept in the audit trail")
