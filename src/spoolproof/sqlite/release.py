"""Which SQLite this Python carries; for those who may not import its driver."""

from __future__ import annotations

import sqlite3


def sqlite_release() -> tuple[int, int, int]:
    """Return the release as three numbers, as in (3, 51, 3)."""
    return sqlite3.sqlite_version_info
