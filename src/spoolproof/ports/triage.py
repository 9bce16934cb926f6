"""Dead letters by the hundred, for the person who works on them: what fails alike, and how a message is put right.

A group is what has one fingerprint in one consumer and is open. An edit is the first editor's: it names the version it
saw. An import never takes the place of anything.

Never here: sending anything. What was edited or imported is open until somebody replays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from spoolproof.message import Message
from spoolproof.ports.dead_letters import DeadLetterDetails, DeadLetterFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What fails alike. reason, error_class, error: of `sample_id`, the newest. recent: failed in the last 5 min."""

    fingerprint: str
    consumer: str
    reason: str
    error_class: str
    error: str
    count: int
    first_failed_at: datetime
    last_failed_at: datetime
    recent: int
    sample_id: str


class Triage(Protocol):
    """The table of dead letters, as a person sees it."""

    async def groups(self, filter: DeadLetterFilter) -> Sequence[Group]:
        """Return the groups of what matches and is open, the largest first, at most `filter.limit`; perhaps none."""

    async def count(self, filter: DeadLetterFilter) -> int:
        """Return how many match, whatever the limit."""

    async def edit(self, id: str, version: int, message: Message, actor: str, detail: str) -> bool:
        """Give an open one another message, and keep the body it came with; its version is one more.

        False, and nothing written, if it is not open or not of this version any more.
        """

    async def restore(self, letters: Sequence[DeadLetterDetails], actor: str, detail: str) -> int:
        """Keep those of which neither the id nor the (consumer, message) is there, open, with their audit trail, all of
        them or none; returns how many."""
