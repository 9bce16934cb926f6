"""Publishes on their way into the file: whatever the loop submits in one turn is one piece of work for the writer.

An outcome is true because it is told after the COMMIT. A commit that failed leaves it unknown, unless the disk was
full: then SQLite has rolled everything back, and the broker has declined.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spoolproof import limits
from spoolproof.brokers.embedded.queues import Parcel, Routes, enqueue
from spoolproof.errors import LimitReached, Unavailable, WindowFull
from spoolproof.failpoints import failpoint
from spoolproof.ports.broker import NACKED, PublishOutcome, Sink, Unknown
from spoolproof.sqlite import Database


@dataclass(frozen=True, slots=True)
class _Publish:
    parcel: Parcel
    token: object
    sink: Sink


class Sender:
    """The publishes without an outcome, at most PUBLISH_WINDOW of them and PUBLISH_WINDOW_BYTES_MAX of bodies."""

    def __init__(
        self, rows_max: int, *, on_enqueued: Callable[[], None], on_trouble: Callable[[BaseException], None]
    ) -> None:
        self._rows_max = rows_max
        self._on_enqueued = on_enqueued
        self._on_trouble = on_trouble
        self._routes = Routes()
        self._waiting: list[_Publish] = []  # bounded by the window
        self._unanswered = 0
        self._unanswered_bytes = 0

    @property
    def room(self) -> int:
        """How many more publishes it takes now."""
        has_bytes = self._unanswered_bytes < limits.PUBLISH_WINDOW_BYTES_MAX
        return limits.PUBLISH_WINDOW - self._unanswered if has_bytes else 0

    def submit(self, database: Database, parcel: Parcel, token: object, sink: Sink) -> None:
        """Take a publish; it is written in the loop's next turn. Raises WindowFull."""
        if self.room < 1:
            raise WindowFull(self._unanswered, limits.PUBLISH_WINDOW)
        self._unanswered += 1
        self._unanswered_bytes += parcel.body_bytes
        self._waiting.append(_Publish(parcel, token, sink))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._flush, database)

    def give_up_waiting(self, detail: str) -> None:
        """End what was not handed to the writer as unknown."""
        waiting, self._waiting = self._waiting, []
        self._answer(waiting, [Unknown(detail)] * len(waiting))

    def _flush(self, database: Database) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        parcels = [publish.parcel for publish in batch]

        def work(db: sqlite3.Connection) -> list[PublishOutcome]:
            failpoint("embedded.before_enqueue")
            return enqueue(db, self._routes, parcels, self._rows_max)

        def done(result: Any) -> None:
            if not isinstance(result, BaseException):
                failpoint("embedded.after_enqueue")
            self._enqueued(batch, result)

        try:
            database.write_soon(work, done, body_bytes=sum(parcel.body_bytes for parcel in parcels))
        except (LimitReached, Unavailable) as error:  # nothing was written
            self._enqueued(batch, error)

    def _enqueued(self, batch: Sequence[_Publish], result: list[PublishOutcome] | BaseException) -> None:
        if not isinstance(result, BaseException):
            self._answer(batch, result)
            self._on_enqueued()
            return
        self._routes = Routes()  # it may have read a topology that was rolled back
        outcome = NACKED if _has_declined(result) else Unknown(str(result))
        self._answer(batch, [outcome] * len(batch))
        if not isinstance(result, LimitReached):
            self._on_trouble(result)

    def _answer(self, batch: Sequence[_Publish], outcomes: Sequence[PublishOutcome]) -> None:
        """Tell the outcomes, in one call per sink."""
        self._unanswered -= len(batch)
        pairs: dict[Sink, list[tuple[object, PublishOutcome]]] = {}
        for publish, outcome in zip(batch, outcomes, strict=True):
            self._unanswered_bytes -= publish.parcel.body_bytes
            pairs.setdefault(publish.sink, []).append((publish.token, outcome))
        for sink, answered in pairs.items():
            sink(answered)


def _has_declined(error: BaseException) -> bool:
    """Tell whether it is certain that nothing was written: the queue of the writer or the disk is full."""
    return isinstance(error, LimitReached) or getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
