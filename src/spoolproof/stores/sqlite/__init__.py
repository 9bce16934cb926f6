"""The SQLite store: one file, tables `spoolproof_…`, one file per port beside its statements in SQL.

It stands on `spoolproof.sqlite`, which has the rules for using the file. Several processes may share it.
"""

from __future__ import annotations

from spoolproof.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
