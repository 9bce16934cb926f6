"""The PostgreSQL store: asyncpg, schema `spoolproof`, one file per port beside its statements in SQL.

Needs PostgreSQL 15 or newer and the extra `postgres`.
"""

from __future__ import annotations

from spoolproof.errors import MissingExtra

try:
    import asyncpg  # noqa: F401 - the one place that reports its absence
except ImportError as error:
    raise MissingExtra("asyncpg", "postgres") from error

from spoolproof.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
