"""The one place where errors of `sqlite3` become ours.

A file that is locked, full, read-only, damaged or closed is StoreUnavailable: waiting or repair helps, and no message
is to blame. Everything else (a constraint, a typing error in SQL) is about the statement and passes as it is.

Source of the codes: https://sqlite.org/rescode.html; the low byte is the primary code.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from spoolproof.errors import StoreUnavailable

_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOTADB,
    }
)
_CLOSED = "closed database"  #: `sqlite3` gives this error no code


def is_away(error: BaseException) -> bool:
    """Tell whether the file, not the statement, is the trouble."""
    if isinstance(error, sqlite3.ProgrammingError):
        return _CLOSED in str(error)
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _AWAY


def is_conflict(error: BaseException | None) -> bool:
    """Tell whether an error of a user's own connection, or the cause of one, says that another transaction was in the
    way. In a transaction of ours that is StoreUnavailable."""
    while error is not None:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return True
        error = error.__cause__
    return False


def unavailable(name: str, error: BaseException) -> StoreUnavailable:
    """Return our error for one of theirs, which is its cause."""
    code = getattr(error, "sqlite_errorname", type(error).__name__)
    ours = StoreUnavailable(f"sqlite:///{name}: {error} ({code})")
    ours.__cause__ = error
    return ours


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's code of an error of ours or of theirs, None if it has none."""
    code = getattr(error, "sqlite_errorcode", None) or getattr(error.__cause__, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise StoreUnavailable in the place of an error that says the file is the trouble."""
    try:
        yield
    except sqlite3.Error as error:
        if is_away(error):
            raise unavailable(name, error) from error
        raise
