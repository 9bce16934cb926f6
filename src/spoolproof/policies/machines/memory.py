"""What a policy remembers of its dependency: the last good answers, how long successes took, and which threads hang."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

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
