"""The clock of leases and delays, `spoolproof_steady()` in SQL: Unix seconds that nobody sets.

A wall clock is put right, by an hour or a year, and what was to end by it ends as much later or earlier. So elapsed
time goes by the clock the machine counts from its start, suspend included. Where that count began on the wall clock is
fixed once, by the first process that opens the file after the start of the machine, and kept in the file: all processes
agree on it, and times can be compared across starts, to within what the wall clock was wrong by.

After a restart of the machine `on_reboot` runs, in the same transaction: nobody holds anything, and no wait lies
further ahead than its own length.

Must not be used for what has to do with the calendar (created, closed, kept for 14 days): that is `NOW`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from spoolproof.clock import Clock

STEADY: Final = "spoolproof_steady()"

OnReboot = Callable[[sqlite3.Connection], object]

_TABLE = """
create table if not exists spoolproof_boot (
  only_row integer primary key check (only_row = 1), boot_id text not null, began_at real not null) strict"""
_FIND = "select boot_id, began_at from spoolproof_boot"
_HAS_TABLE = "select exists (select 1 from sqlite_schema where type = 'table' and name = ?)"


def give_steady(connection: sqlite3.Connection, clock: Clock, on_reboot: OnReboot | None = None) -> None:
    """Give a connection the function; the first connection of a process holds the write lock. Raises sqlite3.Error."""
    boot_id = clock.boot_id()
    if not boot_id:  # a platform that does not tell its starts apart
        _give(connection, lambda: clock.now().timestamp())
        return
    found = _found(connection)
    if found is None or found[0] != boot_id:
        found = _begin(connection, clock, boot_id, on_reboot)
    began_at = found[1]
    _give(connection, lambda: began_at + clock.monotonic())


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether the file has a table; for `on_reboot`, which may meet a file that nobody has finished."""
    return bool(connection.execute(_HAS_TABLE, (name,)).fetchone()[0])


def _found(connection: sqlite3.Connection) -> tuple[str, float] | None:
    if not has_table(connection, "spoolproof_boot"):
        return None
    row = connection.execute(_FIND).fetchone()
    return None if row is None else (str(row[0]), float(row[1]))


def _begin(connection: sqlite3.Connection, clock: Clock, boot_id: str, on_reboot: OnReboot | None) -> tuple[str, float]:
    began_at = clock.now().timestamp() - clock.monotonic()
    connection.execute("begin immediate")
    try:
        found = _found(connection)
        if found is not None and found[0] == boot_id:  # another process was first
            connection.execute("rollback")
            return found
        connection.execute(_TABLE)
        connection.execute("insert or replace into spoolproof_boot values (1, ?, ?)", (boot_id, began_at))
        if found is not None and on_reboot is not None:
            _give(connection, lambda: began_at + clock.monotonic())
            on_reboot(connection)
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
    return boot_id, began_at


def _give(connection: sqlite3.Connection, steady: Callable[[], float]) -> None:
    # deterministic: one time per statement
    connection.create_function("spoolproof_steady", 0, steady, deterministic=True)
