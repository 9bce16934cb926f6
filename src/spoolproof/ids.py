"""The only door to new identities.

A message id is a version 7 UUID: it sorts by the time it was made, so an index on it grows at one end. Ids made by
one `Ids` rise strictly, also within a millisecond and when the wall clock steps back.
Source of the layout: RFC 9562 section 5.7; the 12 bits after the version count within a millisecond (section 6.2,
method 1).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import UUID, uuid5

from spoolproof.clock import Clock

_COUNTER_MAX = 0xFFF


class Ids:
    """Makes ids from a clock and a source of random bytes. Not thread-safe: one per event loop or thread."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._milliseconds = 0
        self._counter = 0
        self._pool = b""
        self._used = 0

    def uuid7(self) -> UUID:
        """Return a new UUID that is greater than every one returned before."""
        milliseconds = int(self._clock.now().timestamp() * 1000)
        if milliseconds > self._milliseconds:
            self._milliseconds = milliseconds
            self._counter = 0
        else:
            self._counter += 1
            if self._counter > _COUNTER_MAX:
                self._milliseconds += 1
                self._counter = 0
        value = (self._milliseconds << 80) | (0x7 << 76) | (self._counter << 64) | (0b10 << 62) | self._random62()
        return UUID(int=value)

    def message_id(self) -> str:
        """Return a new message id: a version 7 UUID as text."""
        return str(self.uuid7())

    def _random62(self) -> int:
        # one system call serves 64 ids: os.urandom per id was the larger half of the cost of a publish
        if self._used >= len(self._pool):
            self._pool = self._random_bytes(512)
            self._used = 0
        chunk = self._pool[self._used : self._used + 8]
        self._used += 8
        return int.from_bytes(chunk, "big") >> 2


_NAMESPACE = UUID("6f0d8f4e-3c57-5b8e-9a38-0e3b6d1f9c11")


def random_id() -> str:
    """Return 32 hexadecimal digits that no process has made before."""
    return os.urandom(16).hex()


def derived_id(*parts: str) -> str:
    """Return the same id for the same parts, everywhere and always (UUID version 5)."""
    return str(uuid5(_NAMESPACE, "\x1f".join(parts)))


def is_uuid(text: str) -> bool:
    """Tell whether `text` is a UUID in its 36-character form."""
    if len(text) != 36:
        return False
    try:
        UUID(text)
    except ValueError:
        return False
    return True
