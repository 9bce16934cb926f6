"""Items of kind `message`: what a handler parked for a person, and what may become of it.

The inbox counts a parked message as handled, so that no redelivery runs it. A replay takes that back and sends it, in
one transaction: the same id, the same queue. An edit sends a new message instead; the one it was made from stays
handled.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from spoolproof.codec import DecodeFailure
from spoolproof.destination import to_queue
from spoolproof.errors import InvalidMessage, InvariantViolated
from spoolproof.ids import Ids
from spoolproof.message import EDIT_OF, REPLAY_OF, Message, Outgoing, check_message, earlier_key, message_key
from spoolproof.ports.store import Store
from spoolproof.ports.units import Unit
from spoolproof.review.actions import Actions, Decision

MESSAGE = "message"
Decode = Callable[[Message], object]
"""Reads a message as its type is registered; raises DecodeFailure."""
ACTIONS = ("replay", "edit", "discard")


def packed(message: Message) -> bytes:
    """Return a message as an item carries it; `unpacked` is the inverse."""
    return msgspec.msgpack.encode(message)


def unpacked(data: bytes | None) -> Message | None:
    """Return the message an item carries."""
    return None if data is None else msgspec.msgpack.decode(data, type=Message)


class Parked:
    """The effects of the actions on parked messages. decode: None where no service is at hand to read one."""

    def __init__(self, store: Store, ids: Ids, decode: Decode | None = None) -> None:
        self._store = store
        self._ids = ids
        self._decode = decode

    def register(self, actions: Actions) -> None:
        """Add them to a registry."""
        for name in ACTIONS:
            actions.own(MESSAGE, name, getattr(self, name))

    async def replay(self, decision: Decision, tx: Unit) -> None:
        """Send it to its handler again, under its own id."""
        message, queue = _carried(decision)
        if (key := message_key(message)) is not None:
            for consumer in (queue, *decision.item.evidence.get("formerly", ())):  # each under which it was handled
                await self._store.inbox.forget(tx.inner, consumer, key, earlier_key(message))
        await self._send(message, queue, decision, tx)

    async def edit(self, decision: Decision, tx: Unit) -> None:
        """Send another one in its place. values: `body`, JSON or text; `force` for one that its handler cannot read."""
        message, queue = _carried(decision)
        body = decision.values.get("body")
        data = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
        if body is None or data == message.body:
            raise InvalidMessage("body", body, "give the whole body it is to have, another one than it has")
        headers = {**message.headers, EDIT_OF: message.id}
        edited = msgspec.structs.replace(message, id=self._ids.message_id(), body=data, headers=headers)
        check_message(msgspec.structs.replace(edited, type=edited.type or "-"))  # a foreign one may have no type
        if not decision.values.get("force"):
            self._check_readable(edited)
        await self._send(edited, queue, decision, tx)

    def _check_readable(self, message: Message) -> None:
        if self._decode is None:
            raise InvalidMessage("service", None, "name the service that reads it, or keep it unread (force)")
        try:
            self._decode(message)
        except DecodeFailure as failure:
            raise InvalidMessage("body", message.body[:60], f"{failure}; correct it, or say force") from failure

    async def discard(self, decision: Decision, tx: Unit) -> None:
        """Leave it at that: the inbox has it."""

    async def _send(self, message: Message, queue: str, decision: Decision, tx: Unit) -> None:
        headers = {**message.headers, REPLAY_OF: decision.item.id}
        message = msgspec.structs.replace(message, headers=headers)
        await self._store.outbox.append([Outgoing(message=message, destination=to_queue(queue))], tx.inner)


def _carried(decision: Decision) -> tuple[Message, str]:
    if decision.message is None:
        raise InvariantViolated(f"review item {decision.item.id} of kind message carries none")
    return decision.message, decision.item.evidence["queue"]
