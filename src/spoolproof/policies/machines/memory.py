"""What a policy, or one key of it, remembers: what it has done, in plain numbers for whoever comes to read them, the
last good answers, how long successes took, and how many threads hang."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

K = TypeVar("K")
NONE: Mapping[Any, int] = MappingProxyType({})  #: shared by all who have counted nothing yet; there may be many keys
lock = threading.RLock()  #: of all: what it guards is rare and short


def one_more(counted: Mapping[K, int], what: K) -> Mapping[K, int]:
    """Return the numbers with one more of `what`."""
    return {**counted, what: counted.get(what, 0) + 1}


class Counts:
    """What was done. A success changes two numbers, each in one step of the interpreter and without a lock; the rest is
    replaced as a whole under one lock, so that it is read without.

    succeeded: calls that ended with a live answer. refused: calls that met an open breaker first. ended: other
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


ENTRIES_MAX = 1024


class Answers:
    """The last good answers, the one not used for longest going first. Thread-safe."""

    __slots__ = ("_entries", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: OrderedDict[tuple[Any, ...], tuple[float, Any]] = OrderedDict()

    def keep(self, question: tuple[Any, ...], answer: Any, now: float) -> None:
        """Remember an answer."""
        with self._lock:
            self._entries[question] = (now, answer)
            self._entries.move_to_end(question)
            if len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)

    def find(self, question: tuple[Any, ...], age_seconds_max: float, now: float) -> tuple[Any] | None:
        """Return the answer in a tuple, or None when there is none young enough."""
        with self._lock:
            entry = self._entries.get(question)
            if entry is None or now - entry[0] > age_seconds_max:
                return None
            self._entries.move_to_end(question)
            return (entry[1],)


_SAMPLES_MIN = 50
_SAMPLES_MAX = 200  #: enough for a 95th percentile, few enough to follow a dependency that changes
_PERCENTILE = 0.95


class Latencies:
    """The latest latencies of successes, and their 95th percentile."""

    __slots__ = ("_latest", "_lock", "_sorted")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._latest: deque[float] = deque(maxlen=_SAMPLES_MAX)
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Note one success."""
        with self._lock:
            if len(self._latest) == _SAMPLES_MAX:
                del self._sorted[bisect_left(self._sorted, self._latest[0])]
            self._latest.append(seconds)
            insort(self._sorted, seconds)

    def percentile(self) -> float | None:
        """Return the 95th percentile in seconds; None until 50 were seen."""
        with self._lock:
            count = len(self._sorted)
            return self._sorted[int(count * _PERCENTILE)] if count >= _SAMPLES_MIN else None


class Abandoned:
    """How many threads of one policy, all its keys together, hang in attempts that were given up on. Not of a process:
    one dependency that hangs refuses the calls of no other. maximum: 0 runs attempts on the caller's thread."""

    __slots__ = ("count", "lock", "maximum")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.count = 0
        self.maximum = 0


@dataclass(slots=True)
class Memory:
    """What nodes remember of a dependency; it outlives the pipeline, which a reload builds anew."""

    answers: Answers | None = None
    latencies: Latencies | None = None
