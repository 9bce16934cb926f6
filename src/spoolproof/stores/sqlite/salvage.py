"""Reading what can be read out of a damaged spool file.

A damaged page stops a scan; what lies before it is found from the front, what lies behind it from the back, and what is
between by asking for each row id. A row counts as read when its message can be taken apart again: one that cannot would
stop the relay at every turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from spoolproof.errors import SpoolproofError
from spoolproof.message import unpack_message

Row = Sequence[Any]

_GAP_ROWS_MAX = 2_000_000  #: ids asked for one by one: more than a spool may hold
_TABLES = {
    "spoolproof_outbox": (
        *("id", "shard", "message_id", "destination", "type", "routing_key", "ordering_key", "headers", "body"),
        *("state", "attempts", "available_at", "last_error", "created_at"),
    ),
    "spoolproof_dead_letter": (
        *("id", "consumer", "message_id", "destination", "routing_key", "ordering_key", "type", "headers", "body"),
        *("reason", "fingerprint", "error_class", "error", "stack", "attempts", "state", "replays", "note"),
        *("first_failed_at", "last_failed_at", "closed_at", "service", "given_id"),
    ),
}


def is_sound(connection: sqlite3.Connection) -> bool:
    """Tell whether SQLite finds nothing wrong with the file."""
    try:
        return [("ok",)] == connection.execute("pragma quick_check(1)").fetchall()
    except sqlite3.DatabaseError:
        return False


def copy_readable(damaged: Path, into: sqlite3.Connection) -> tuple[int, int, int]:
    """Insert every readable row into the open transaction of a fresh file; returns how many rows of the outbox, how
    many dead letters, and how many places that could not be read."""
    counts, unreadable = [], 0
    with closing(sqlite3.connect(damaged, isolation_level=None)) as connection:
        for table, columns in _TABLES.items():
            insert = f"insert or ignore into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"
            kept = 0
            for row in _rows(connection, f"select rowid, {', '.join(columns)} from {table} where rowid"):
                if row is not None and _is_whole(dict(zip(columns, row[1:], strict=True))):
                    with suppress(sqlite3.IntegrityError, sqlite3.InterfaceError):
                        kept += into.execute(insert, row[1:]).rowcount
                        continue
                unreadable += 1
            counts.append(kept)
    return counts[0], counts[1], unreadable


def _rows(connection: sqlite3.Connection, select: str) -> Iterator[Row | None]:
    """Yield every row that can be reached, and None for each place that cannot."""
    low = 0
    try:
        for row in connection.execute(f"{select} > 0 order by rowid"):
            low = row[0]
            yield row
        return
    except sqlite3.DatabaseError:
        high, behind = low + _GAP_ROWS_MAX, []
    try:
        for row in connection.execute(f"{select} > ? order by rowid desc", (low,)):
            behind.append(row)
            high = row[0]
    except sqlite3.DatabaseError:
        if not behind:
            yield None
            return  # neither end can be reached: there is no way in
    for id in range(low + 1, min(high, low + _GAP_ROWS_MAX)):
        try:
            yield from connection.execute(f"{select} = ?", (id,))
        except sqlite3.DatabaseError:
            yield None
    yield from reversed(behind)


def _is_whole(row: dict[str, Any]) -> bool:
    read: Callable[..., object] = unpack_message
    try:
        read(
            message_id=row.get("given_id") or row["message_id"],
            type=row["type"],
            key=row["ordering_key"],
            meta=row["headers"],
            body=row["body"],
        )
    except (SpoolproofError, ValueError, TypeError):
        return False
    return True
