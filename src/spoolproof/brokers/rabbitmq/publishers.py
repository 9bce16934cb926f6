"""Several publish connections as one: each message goes to the one with most room.

An id that is still open on one connection stays there while that has room, so the two copies of a row whose answer did
not come are never on their way at once. While anything is suspected of ending channels all goes through one
connection: only there can it be alone.

A connection that is lost answers what was on its way as unknown, and the relay sends it again at once: here, through
one that is left. With one connection none of this runs: the broker then has the sender itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spoolproof.brokers.rabbitmq.sender import Sender, Shared, has_room_within
from spoolproof.message import Outgoing
from spoolproof.ports.broker import Sink


class Publishers:
    """The senders of a process, with the face of one."""

    def __init__(self, senders: Sequence[Sender], shared: Shared) -> None:
        self._senders = senders
        self._shared = shared

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        """Write one publish. See ports.broker."""
        self._sender_for(outgoing.message.id).submit(outgoing, token, sink)

    def room(self) -> int:
        """Return how many submits would be taken now."""
        return sum(sender.room() for sender in self._usable())

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        """Return True as soon as room() is above 0, or False after the time."""
        return await has_room_within(timeout_seconds, self.room, self._shared.changed)

    def allow(self) -> None:
        """Begin to take publishes: the topology they go to was declared."""
        for sender in self._senders:
            sender.allow()

    def tick(self) -> None:
        """Look after time limits; called every second."""
        for sender in self._senders:
            sender.tick()

    def issues(self) -> list[str]:
        """Return a sentence for everything that waits for the broker, once."""
        return list(dict.fromkeys(issue for sender in self._senders for issue in sender.issues()))

    def _sender_for(self, message_id: str) -> Sender:
        usable = self._usable()
        for sender in usable:
            if sender.holds(message_id) and sender.room() > 0:
                return sender
        return max(usable, key=Sender.room)

    def _usable(self) -> Sequence[Sender]:
        """Return the senders to choose from; never none, so that a submit says itself why it is refused."""
        for is_fit in _FITNESS:
            fit = [sender for sender in self._senders if is_fit(sender)]
            if not fit:
                continue
            in_doubt = [sender for sender in fit if sender.is_in_doubt]
            if in_doubt or self._shared.suspects:
                return (in_doubt or fit)[:1]
            return fit
        return self._senders


_FITNESS: tuple[Callable[[Sender], bool], ...] = (
    lambda sender: sender.is_open and not sender.is_blocked,
    lambda sender: sender.is_open,
)
