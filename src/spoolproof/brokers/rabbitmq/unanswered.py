"""Publishes waiting for their confirm on one channel: pure bookkeeping, no I/O.

pika numbers nothing and matches nothing. Tags count from 1 after Select-Ok, in the order publishes were written; one
confirm frame may settle every tag up to its own (`multiple`). A return arrives just before the confirm of the same
publish and carries only what we sent, so it is matched by message id: an id is on its way at most once per channel.

Late entries were answered as unknown after the time limit, yet their confirm may still come: they keep their tag and
id but take no room.
"""

from __future__ import annotations

from collections.abc import Iterable

from spoolproof.message import Outgoing
from spoolproof.ports.broker import CONFIRMED, NACKED, PublishOutcome, Returned, Sink


class Entry:
    """One publish."""

    __slots__ = ("id", "is_late", "outgoing", "returned", "since", "sink", "size", "token")

    def __init__(self, outgoing: Outgoing, token: object, sink: Sink, since: float) -> None:
        self.outgoing = outgoing
        self.token = token
        self.sink = sink
        self.since = since  #: monotonic seconds when it was handed to us, or when the broker went on after a block
        self.id = outgoing.message.id
        self.size = len(outgoing.message.body)
        self.returned: str | None = None
        self.is_late = False


class Unanswered:
    """Open entries by tag, oldest first."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._by_id: dict[str, Entry] = {}
        self._tag = 0
        self._settled_tag = 0  # the newest that was answered
        self.late = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries) - self.late

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._by_id

    def add(self, entry: Entry) -> None:
        """Note a publish that was written; call it only when pika's publish has returned."""
        self._tag += 1
        self._entries[self._tag] = entry
        self._by_id[entry.id] = entry
        self.size_bytes += entry.size

    def mark_returned(self, message_id: str, detail: str) -> bool:
        """Note a return. False if no publish of that id is open: then no confirm can be believed any more."""
        entry = self._by_id.get(message_id)
        if entry is None:
            return False
        entry.returned = detail
        return True

    def settle(self, tag: int, multiple: bool) -> list[Entry]:
        """Take out what a confirm frame answers, late ones included, in publish order."""
        self._settled_tag = max(self._settled_tag, tag)
        if not multiple:
            entry = self._entries.pop(tag, None)
            settled = [] if entry is None else [entry]
        else:
            tags = []
            for open_tag in self._entries:
                if open_tag > tag:
                    break
                tags.append(open_tag)
            settled = [self._entries.pop(open_tag) for open_tag in tags]
        for entry in settled:
            del self._by_id[entry.id]
            if entry.is_late:
                self.late -= 1
            else:
                self.size_bytes -= entry.size
        return settled

    def older_than(self, before: float, *, overtaken: bool = False) -> list[Entry]:
        """Return the entries nobody has heard of since `before`; overtaken: of these, those with a later one
        answered."""
        older = []
        for tag, entry in self._entries.items():
            if entry.since >= before or (overtaken and tag > self._settled_tag):
                break
            if not entry.is_late:
                older.append(entry)
        return older

    def make_late(self, entries: Iterable[Entry]) -> None:
        """Their time is over; their answer may still come."""
        for entry in entries:
            entry.is_late = True
            self.late += 1
            self.size_bytes -= entry.size

    def oldest_since(self) -> float | None:
        """Return since when the oldest unanswered publish waits, or None."""
        return next((entry.since for entry in self._entries.values() if not entry.is_late), None)

    def restart_timers(self, now: float) -> None:
        """Count the time limit of every entry from now: the broker was not reading."""
        for entry in self._entries.values():
            entry.since = now

    def unanswered(self) -> list[Entry]:
        """Return the entries nobody has heard of yet, in publish order."""
        return [entry for entry in self._entries.values() if not entry.is_late]


def answer_of(entry: Entry, is_ack: bool) -> PublishOutcome:
    """Return the outcome of a settled entry; a return beats the ack that follows it."""
    if entry.returned is not None:
        return Returned(entry.returned)
    return CONFIRMED if is_ack else NACKED


def by_sink(answers: Iterable[tuple[Entry, PublishOutcome]]) -> dict[Sink, list[tuple[object, PublishOutcome]]]:
    """Group answers so that each sink is called once per confirm frame."""
    groups: dict[Sink, list[tuple[object, PublishOutcome]]] = {}
    for entry, outcome in answers:
        groups.setdefault(entry.sink, []).append((entry.token, outcome))
    return groups
