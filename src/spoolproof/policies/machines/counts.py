"""What a policy, or one key of it, has done since it was made: plain numbers, for whoever comes to read them.

A success changes two of them, each in one step of the interpreter and without a lock. The rest is replaced as a whole
under one lock, so that it is read without.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

K = TypeVar("K")
NONE: Mapping[Any, int] = MappingProxyType({})  #: shared by all who have counted nothing yet; there may be many keys
lock = threading.RLock()  #: of all: what it guards is rare and short


def one_more(counted: Mapping[K, int], what: K) -> Mapping[K, int]:
    """Return the numbers with one more of `what`."""
    return {**counted, what: counted.get(what, 0) + 1}


class Counts:
    """succeeded: calls that ended with a live answer. refused: calls that met an open breaker first. ended: other
    calls, by result (a verdict's kind, or `success`) and source (live, stale, fallback). attempts: runs of the
    function. rejected: attempts that were not let through, by what. retries: further attempts that were scheduled.
    stopped: calls without a further attempt, by why."""

    __slots__ = ("attempts", "ended", "refused", "rejected", "retries", "stopped", "succeeded")

    def __init__(self) -> None:
        self.succeeded = 0
        self.refused = 0
        self.attempts = 0
        self.retries = 0
        self.ended: Mapping[tuple[str, str], int] = NONE
        self.rejected: Mapping[str, int] = NONE
        self.stopped: Mapping[str, int] = NONE

    def note_end(self, result: str, source: str) -> None:
        """Count a call that ended in another way than with a live answer."""
        with lock:
            self.ended = one_more(self.ended, (result, source))

    def note_rejection(self, by: str) -> None:
        """Count an attempt that was not let through."""
        with lock:
            self.rejected = one_more(self.rejected, by)

    def note_retry(self) -> None:
        """Count a further attempt."""
        with lock:
            self.retries += 1

    def note_stop(self, reason: str) -> None:
        """Count a call for which there is no further attempt."""
        with lock:
            self.stopped = one_more(self.stopped, reason)

    def calls(self) -> dict[tuple[str, str], int]:
        """Return how many calls ended, by result and source."""
        found = dict(self.ended)
        for key, more in ((("success", "live"), self.succeeded), (("local", "live"), self.refused)):
            if more:
                found[key] = found.get(key, 0) + more
        return found

    def rejections(self) -> dict[str, int]:
        """Return how many attempts and calls were not let through, by what."""
        found = dict(self.rejected)
        if self.refused:
            found["breaker"] = found.get("breaker", 0) + self.refused
        return found
