"""Which message it is that ends our channels and connections: pure bookkeeping.

A broker may answer one message by closing the channel or the whole connection. What was on its way with it is unknown
and goes again, so the one at fault does it again, for ever, and nothing else gets through. Whoever was alone on its way
at such an end is suspected. Guilty is:

- who twice was alone when the broker gave a reason that is about content (too large, a property it refuses), or
- who three times was alone, each time after another message had been confirmed on the same channel, so that the way
  was open for others. Until then a suspect goes after others, never before them.

Everything else (no permission, no exchange, an operator, a dead node) is the broker's trouble and blames nobody.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from spoolproof import limits

ABOUT_CONTENT: Final = frozenset({311, 406, 501, 502, 540})
"""content-too-large, precondition-failed, frame-error, syntax-error, not-implemented: AMQP 0-9-1, section 1.2, and
RabbitMQ's 406 for a message over its size limit."""

_ENDS_ABOUT_CONTENT: Final = 2
_ENDS_AFTER_OTHERS: Final = 3
_SUSPECTS_MAX: Final = 256  #: one window; the oldest is let go


class Suspects:
    """Messages that were alone on their way when a channel or connection ended, by id."""

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._cuts: deque[float] = deque(maxlen=2)  # when publishes were last cut off

    def cut_off(self, now: float) -> None:
        """A channel or connection ended with publishes on it."""
        self._cuts.append(now)

    def is_repeating(self, now: float) -> bool:
        """Whether publishes were cut off more than once lately."""
        return len(self._cuts) == self._cuts.maxlen and now - self._cuts[0] <= limits.ENDS_WINDOW_SECONDS

    def __bool__(self) -> bool:
        return bool(self._ends)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._ends

    def was_alone(self, message_id: str, code: int, *, after_others: bool) -> bool:
        """Note an end; True when this message is guilty of it. code: the broker's, 0 for none.

        after_others: the same channel had confirmed another message before.
        """
        is_about_content = code in ABOUT_CONTENT
        ends = self._ends.pop(message_id, 0) + (is_about_content or after_others)
        if ends >= (_ENDS_ABOUT_CONTENT if is_about_content else _ENDS_AFTER_OTHERS):
            return True
        if len(self._ends) >= _SUSPECTS_MAX:
            del self._ends[next(iter(self._ends))]
        self._ends[message_id] = ends
        return False

    def acquit(self, message_id: str) -> None:
        """It was answered like any other."""
        self._ends.pop(message_id, None)
