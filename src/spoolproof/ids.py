"""The only door to new identities.

A message id is a version 7 UUID: it sorts by the time it was made, so an index on it grows at one end. Ids made by
one `Ids` rise strictly, also within a millisecond and when the wall clock steps back.
Source of the layout: RFC 9562 section 5.7; the 12 bits after the version count within a millisecond (section 6.2,
method 1).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from hashlib import sha1
from uuid import UUID
from weakref import WeakSet

from spoolproof.clock import Clock

_COUNTER_MAX = 0xFFF
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  #: 10 in the two highest bits, the others random


_made: WeakSet[Ids] = WeakSet()


def _forget_what_is_drawn() -> None:
    for ids in _made:  # it is the parent's: every worker would make the same ids
        ids._pool = ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_what_is_drawn)


class Ids:
    """Makes ids from a clock and a source of random bytes. Not thread-safe: one per event loop or thread."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._milliseconds = 0
        self._counter = 0
        self._prefix = ""
        self._pool = ""
        self._used = 0
        _made.add(self)

    def uuid7(self) -> UUID:
        """Return a new UUID that is greater than every one returned before."""
        return UUID(self.message_id())

    def message_id(self, now: datetime | None = None) -> str:
        """Return a new message id: a version 7 UUID as text, greater than every one returned before.

        now: what the clock says, for those who have asked it already.
        """
        # put together as text: as a number it would go through two conversions and an object, half a publish
        milliseconds = int((now or self._clock.now()).timestamp() * 1000)
        if milliseconds > self._milliseconds:
            self._turn(milliseconds)
        elif self._counter < _COUNTER_MAX:
            self._counter += 1
        else:
            self._turn(self._milliseconds + 1)
        # one system call serves 64 ids: os.urandom per id was the larger half of the cost of a publish
        used = self._used
        if used >= len(self._pool):
            self._pool = self._random_bytes(512).hex()
            used = 0
        self._used = used + 16
        digits = self._pool[used : used + 16]
        return f"{self._prefix}{self._counter:03x}-{_VARIANT[digits[0]]}{digits[1:4]}-{digits[4:]}"

    def _turn(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        self._counter = 0
        text = f"{milliseconds:012x}"
        self._prefix = f"{text[:8]}-{text[8:]}-7"


_NAMESPACE = UUID("6f0d8f4e-3c57-5b8e-9a38-0e3b6d1f9c11")


def random_id() -> str:
    """Return 32 hexadecimal digits that no process has made before."""
    return os.urandom(16).hex()


def derived_id(*parts: str) -> str:
    """Return the same id for the same parts, everywhere and always (UUID version 5, RFC 9562 section 5.5)."""
    # by hand: uuid5 makes an object on the way, and takes four times as long, for every message
    digest = bytearray(sha1(_NAMESPACE.bytes + "\x1f".join(parts).encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_uuid(text: str) -> bool:
    """Tell whether `text` is a UUID in its 36-character form."""
    if len(text) != 36:
        return False
    try:
        UUID(text)
    except ValueError:
        return False
    return True
