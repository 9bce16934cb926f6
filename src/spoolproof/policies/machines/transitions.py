"""Tells what a breaker did, to those who watch it and to the listeners of events: outside its lock, one at a time, in
the order in which it happened. Who finds somebody else telling leaves it to that one: a watcher that makes a transition
itself, or a second thread, would otherwise have the later one told first."""

from __future__ import annotations

import threading
from collections.abc import Callable

from spoolproof.policies import events

Watcher = Callable[[events.BreakerChanged], None]


class Transitions:
    """Those of one breaker, whose lock this shares. untold: what is still to be told, appended to under that lock;
    read it without, to ask whether there is any."""

    __slots__ = ("_lock", "_telling", "_watchers", "untold")

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._telling = threading.Lock()
        self._watchers: tuple[Watcher, ...] = ()
        self.untold: list[events.BreakerChanged] = []  # far smaller than a deque, and hardly ever longer than one

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` at each transition; returns the unwatch. What it raises is swallowed and counted in
        `events.listener_errors()`."""
        entry = lambda change: callback(change)  # noqa: E731  its own identity: one callback may watch twice
        with self._lock:
            self._watchers = (*self._watchers, entry)

        def unwatch() -> None:
            with self._lock:
                self._watchers = tuple(one for one in self._watchers if one is not entry)

        return unwatch

    def tell(self) -> None:
        """Tell what is untold."""
        while self.untold:
            if not self._telling.acquire(blocking=False):
                return
            try:
                while self.untold:
                    self._tell(self.untold.pop(0))
            finally:
                self._telling.release()

    def _tell(self, change: events.BreakerChanged) -> None:
        events.tell(self._watchers, change)
        if events.listeners:
            events.emit(change)
