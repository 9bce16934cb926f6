"""The first level: entries of this process, bounded by number and bytes; what was not used longest leaves first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from spoolproof.cache.coder import Coder

ENTRY_BYTES = 400
"""What an entry takes beside its key and its bytes."""


class Kept:
    """An entry in memory. Moments are of the monotonic clock.

    value: what callers get, where it can be shared; else None, and each gets a copy of his own made from `body`.
    refresh_at: from then on one background load is due; fresh_until: stale from then on; dead_at: gone. retry_at:
    before that a failed load is not tried again. sequence, tags: what barriers go by. generation: of the cache when it
    was last certain; another one means that the shared cache has to be asked. loaded_ms: by the wall clock.
    """

    __slots__ = (
        *("body", "coder", "dead_at", "fresh_until", "generation", "is_shareable", "loaded_at", "loaded_ms"),
        *("refresh_at", "retry_at", "sequence", "tags", "value", "version"),
    )

    def __init__(
        self,
        *,
        coder: Coder,
        value: Any,
        body: bytes,
        is_shareable: bool,
        version: bytes,
        loaded_at: float,
        loaded_ms: int,
        refresh_at: float,
        fresh_until: float,
        dead_at: float,
        sequence: int,
        tags: tuple[str, ...],
        generation: int,
    ) -> None:
        self.coder = coder
        self.value: Any = value if is_shareable else None
        self.body = body
        self.is_shareable = is_shareable
        self.version = version
        self.loaded_at = loaded_at
        self.loaded_ms = loaded_ms
        self.refresh_at = refresh_at
        self.fresh_until = fresh_until
        self.dead_at = dead_at
        self.sequence = sequence
        self.tags = tags
        self.generation = generation
        self.retry_at = 0.0

    def copy(self) -> Any:
        """Return the value for one caller."""
        return self.value if self.is_shareable else self.coder.value_of(self.body)

    def expire(self) -> None:
        """Be stale from now on."""
        self.refresh_at = self.fresh_until = 0.0


class Memory:
    """Least recently used first. entries_max, bytes_max: neither is ever exceeded; an entry above the second alone is
    not kept."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self.entries_max = entries_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self.evicted = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self.find = self._kept.get  #: without counting as a use
        self.touch = self._kept.move_to_end

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[str, Kept]]:
        return iter(list(self._kept.items()))

    def put(self, key: str, kept: Kept) -> None:
        """Keep an entry as the one used last."""
        self.drop(key)
        size = _size(key, kept)
        if size > self.bytes_max:
            return
        self._kept[key] = kept
        self.bytes += size
        while self.bytes > self.bytes_max or len(self._kept) > self.entries_max:
            oldest, gone = self._kept.popitem(last=False)
            self.bytes -= _size(oldest, gone)
            self.evicted += 1

    def drop(self, key: str) -> None:
        """Forget an entry, if it is there."""
        gone = self._kept.pop(key, None)
        if gone is not None:
            self.bytes -= _size(key, gone)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self.bytes = 0


def _size(key: str, kept: Kept) -> int:
    return ENTRY_BYTES + len(key) + len(kept.body)
