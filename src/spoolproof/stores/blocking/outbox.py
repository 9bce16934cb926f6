"""The outbox of one service, for blocking callers of any thread."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import (
    LimitReached,
    OutboxFull,
    OutboxMissing,
    ScheduleFull,
    SettingsError,
    UnsupportedTransaction,
    WrongDatabase,
)
from spoolproof.message import Outgoing, shard_of
from spoolproof.statements import load_statements
from spoolproof.stores.blocking.handles import Dialect, Handle, open_handle
from spoolproof.stores.outbox import check_room, columns_of
from spoolproof.stores.schedule import due_at, due_seconds
from spoolproof.urls import path_of

_SQL: Final = {
    "postgresql": load_statements(__package__, "postgres.sql"),
    "sqlite": load_statements(__package__, "sqlite.sql"),
}
_CLAIMS_MAX = 100  #: of services that start at once each round gives one its block
_HASHES = 2**32
_NAMED_ELSEWHERE = re.compile(r"[?&](database|dbname|service)=")


@dataclass(slots=True)
class _Filled:
    """How full a table is, as far as is known. statement: counts its rows."""

    statement: str
    rows_max: int
    full: type[LimitReached]
    rows: int = 0
    look_at: float = float("-inf")


class BlockingOutbox:
    """Appends events of one service through users' transactions. Safe for any number of threads."""

    def __init__(self, url: str, service: str, *, store: str, is_pooled: bool, rows_max: int, clock: Clock) -> None:
        """store: the adapter's word. is_pooled: behind a pooler, which may have other names for databases than the
        server."""
        self._url = url
        self._service = service
        self._is_pooled = is_pooled
        self._clock = clock
        self._dialect: Dialect = "sqlite" if store == "sqlite" else "postgresql"
        self._has_transactions = store != "memory"
        self._sql = _SQL[self._dialect]
        self._known: WeakSet[object] = WeakSet()  # connections that lead to the store's database
        self._outbox = _Filled("rows", rows_max, OutboxFull)
        self._schedule = _Filled("scheduled_rows", limits.SCHEDULED_ROWS_MAX, ScheduleFull)

    def append(self, outgoing: Outgoing, transaction: object) -> None:
        """Add a row in the user's transaction, to the outbox or the schedule. Raises TransactionError, OutboxFull,
        ScheduleFull, and what the driver raises."""
        if not self._has_transactions:
            raise UnsupportedTransaction(
                transaction, ["nothing: SPOOLPROOF_STORE=memory:// has no transactions of yours"]
            )
        handle = open_handle(transaction, self._dialect)
        filled = self._outbox if outgoing.due is None else self._schedule
        check_room(filled.rows, 1, filled.rows_max, filled.full)
        self._check_place(handle)
        _, *columns = columns_of(outgoing, 0)
        statement, due = self._due(outgoing)
        values = (self._service, shard_of(outgoing.message, _HASHES), *columns, *due)
        for _ in range(_CLAIMS_MAX):
            if self._changed(handle, statement, *values):
                self._look_when_due(handle, filled)
                return
            self._changed(handle, "claim", self._service)
        raise SettingsError([f"SPOOLPROOF_STORE: the database has no block of shards left for {self._service!r}"])

    def _due(self, outgoing: Outgoing) -> tuple[str, tuple[float | None, ...]]:
        """Return the statement that adds a row, and what it is given beyond the columns."""
        if outgoing.due is None:
            return "append", ()
        if self._dialect == "sqlite":  # its clock is the machine's
            return "schedule", (due_at(outgoing, self._clock.now()).timestamp(),)
        return "schedule", due_seconds(outgoing)

    def _changed(self, handle: Handle, name: str, *values: object) -> int:
        try:
            return handle.run(self._sql[name], *values).changed
        except Exception as error:
            if "no such table: spoolproof_" in str(error):
                raise self._missing() from error
            raise

    def _check_place(self, handle: Handle) -> None:
        if self._dialect == "sqlite":
            file = handle.run(self._sql["place"]).rows[0][2]
            if not _is_same(file, self._url):
                raise WrongDatabase(
                    f"transaction= is on {file or 'a database in memory'}, the service's store is {self._url}; pass a "
                    "transaction on that file, or point SPOOLPROOF_STORE at yours"
                )
            handle.run(self._sql["prepare"])
        elif not self._is_known(handle.driver):
            ((name, has_outbox),) = handle.run(self._sql["place"]).rows
            wanted = unquote(urlsplit(self._url).path.strip("/"))
            is_named = wanted and not self._is_pooled and not _NAMED_ELSEWHERE.search(self._url)
            if is_named and name != wanted:
                raise WrongDatabase(
                    f"transaction= is on database {name!r}, SPOOLPROOF_STORE names {wanted!r}; pass a transaction of "
                    "that database, or point SPOOLPROOF_STORE at yours"
                )
            if not has_outbox:
                raise self._missing()
            self._keep(handle.driver)

    def _is_known(self, driver: object) -> bool:
        try:
            return driver in self._known
        except TypeError:  # cannot be referenced weakly: asked each time
            return False

    def _keep(self, driver: object) -> None:
        try:
            self._known.add(driver)
        except TypeError:
            return

    def _look_when_due(self, handle: Handle, filled: _Filled) -> None:
        """Count the rows for the next ones; not before the INSERT, since a SQLite transaction that has read may be too
        old to write."""
        now = self._clock.monotonic()
        if now < filled.look_at:
            filled.rows += 1
            return
        filled.look_at = now + limits.OUTBOX_ESTIMATE_SECONDS
        is_span = self._dialect == "sqlite" and filled is self._outbox
        most = filled.rows_max + 1 if filled is self._schedule else min(limits.ROWS_COUNTED_MAX, filled.rows_max + 1)
        values = () if is_span else (self._service, most)
        filled.rows = int(handle.run(self._sql[filled.statement], *values).rows[0][0])

    def _missing(self) -> OutboxMissing:
        return OutboxMissing(
            "the database of this transaction has no outbox; pass a transaction of the service's store, or run: "
            "spoolproof migrate"
        )


def _is_same(file: str, url: str) -> bool:
    try:
        return os.path.samefile(file, path_of(url))
    except OSError:  # in memory, or deleted
        return False
