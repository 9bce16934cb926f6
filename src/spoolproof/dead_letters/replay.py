"""An operator's two verbs on one dead letter. Both name who did it and why, in the audit trail."""

from __future__ import annotations

from spoolproof.destination import Kind, destination_of
from spoolproof.errors import Conflict, InvalidMessage, NotFound
from spoolproof.failpoints import failpoint
from spoolproof.message import check_short_text
from spoolproof.ports.dead_letters import DeadLetterDetails, DeadLetterState
from spoolproof.ports.store import Store


async def find(store: Store, id: str) -> DeadLetterDetails:
    """Return a dead letter with its audit trail. Raises NotFound."""
    details = await store.dead_letters.get(id)
    if details is None:
        raise NotFound(f"there is no dead letter {id!r}; `spoolproof dlq ls` shows those there are")
    return details


async def replay(store: Store, id: str, *, actor: str, reason: str, to: str | None = None, force: bool = False) -> None:
    """Send a dead letter again, to the consumer that gave up on it and to no other.

    to: `queue:NAME` of another consumer, whose it is from then on. force: also one whose earlier replay has come to no
    end. Raises InvalidMessage; NotFound; Conflict if it is not open (somebody else has just replayed or discarded it),
    or if the other consumer has a dead letter of this message.
    """
    check_who(actor, reason)
    queue = queue_of(to)
    failpoint("replay.before_move")
    moved = await store.dead_letters.replay(id, actor, reason, queue=queue, force=force)
    failpoint("replay.after_move")
    if not moved:
        state = (await find(store, id)).record.state
        if queue is not None and state is DeadLetterState.OPEN:
            raise Conflict(f"queue {queue} has a dead letter of the message of {id} already; replay that one")
        remedy = "; to send it again all the same, add --force" if state is DeadLetterState.REPLAYING else ""
        if state is DeadLetterState.HELD:
            remedy = "; it runs by itself once the one that its key is held for was replayed or discarded"
        raise Conflict(f"dead letter {id} is {state}; only an open one can be replayed{remedy}")
    store.wakeup.notify()


async def discard(store: Store, id: str, *, actor: str, note: str) -> None:
    """Close a dead letter for good; its content stays readable for 30 days. Raises NotFound or Conflict."""
    check_who(actor, note)
    if not await store.dead_letters.discard(id, actor, note):
        details = await find(store, id)
        raise Conflict(f"dead letter {id} is {details.record.state}; only an open or replaying one can be discarded")


def check_who(actor: str, reason: str) -> None:
    """Raise InvalidMessage unless it is said who does something, and why."""
    for name, value, remedy in (
        ("actor", actor, "say who does it"),
        ("reason", reason, "say why; it is kept in the audit trail"),
    ):
        if not value.strip():
            raise InvalidMessage(name, value, remedy)


def queue_of(to: str | None) -> str | None:
    """Return the queue that `queue:NAME` names. Raises InvalidMessage."""
    if to is None:
        return None
    destination = destination_of(to)
    if destination.kind is not Kind.QUEUE:
        raise InvalidMessage("to", to, "write queue:NAME, the queue of one consumer")
    check_short_text("to", destination.name)
    return destination.name
