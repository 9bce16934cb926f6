"""Opening the file, with every setting that durability rests on.

Must change together: these settings and what `stores.sqlite.handles` sets on a user's own connection.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from spoolproof import limits
from spoolproof.errors import SettingsError, StoreUnavailable

NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"
"""The wall clock: Unix seconds, to the millisecond. `unixepoch('subsec')` would need SQLite 3.42."""

_VERSION_MIN = (3, 37, 0)  #: STRICT tables; RETURNING came in 3.35
_SYNCHRONOUS_FULL = 2
_FRAME_HEADER_BYTES = 24  #: https://sqlite.org/fileformat2.html#walformat


def check_version() -> None:
    """Raise SettingsError unless the SQLite that Python is linked with is new enough."""
    if sqlite3.sqlite_version_info < _VERSION_MIN:
        needed = ".".join(map(str, _VERSION_MIN))
        raise SettingsError(
            [f"the sqlite3 module uses SQLite {sqlite3.sqlite_version}, {needed} or newer is needed; update Python"]
        )


def make_directory(directory: Path) -> None:
    """Create a directory and its parents, each durable in its own parent. Raises OSError."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file. The caller holds the write lock when the file may be new. Raises sqlite3.Error,
    StoreUnavailable when a setting does not take."""
    connection = sqlite3.connect(
        path,
        timeout=limits.STATEMENT_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # a runner decides where its connection is used, one thread at a time
        cached_statements=256,
        detect_types=sqlite3.PARSE_DECLTYPES,  # for users' tables; ours have types without converters
    )
    try:
        _set(connection, "journal_mode", "WAL", "wal")
        _set(connection, "synchronous", "FULL", _SYNCHRONOUS_FULL)
        _set(connection, "wal_autocheckpoint", "0", 0)
        _set(connection, "foreign_keys", "ON", 1)
        _set(connection, "journal_size_limit", str(log_bytes_max(connection)), log_bytes_max(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def log_bytes_max(connection: sqlite3.Connection) -> int:
    """Return the size of a write-ahead log that holds CHECKPOINT_PAGES pages."""
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return limits.CHECKPOINT_PAGES * (int(page_bytes) + _FRAME_HEADER_BYTES)


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _set(connection: sqlite3.Connection, name: str, value: str, expected: object) -> None:
    connection.execute(f"PRAGMA {name} = {value}").fetchone()
    found = connection.execute(f"PRAGMA {name}").fetchone()
    if found is None or found[0] != expected:
        actual = found and found[0]
        raise StoreUnavailable(f"SQLite did not take {name}={value} but {actual!r}; is the file on a network disk?")
