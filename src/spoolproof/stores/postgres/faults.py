"""The one place where errors of asyncpg become ours.

A server that is away, ending, out of resources or read-only is StoreUnavailable: waiting helps, and no message is to
blame. Everything else in a user's transaction is about the user's statement and passes as it is.

Judged by SQLSTATE class, not by asyncpg's class names, so that codes of newer servers and drivers fall in place.
Source: PostgreSQL 18 documentation, appendix A.
"""

from __future__ import annotations

import asyncpg

from spoolproof.errors import OutboxMissing, StoreUnavailable

_AWAY_CLASSES = frozenset({"08", "53", "57", "58"})
"""Connection exception, insufficient resources, operator intervention, system error."""
_AWAY_CODES = frozenset({"25006", "25P03", "25P04"})
"""Read-only server (a standby after a failover); the server ended an idle or long transaction."""
_QUERY_CANCELED = "57014"
"""A statement timeout or a person cancelled one statement: the server is there."""
_OWN_CODES = frozenset({_QUERY_CANCELED, "40001", "40P01", "55P03"})
"""Cancelled, serialisation failure, deadlock, lock not available: a statement of ours may be tried again."""

_CONFLICT_CODES = frozenset({"40001", "40P01"})
"""Serialisation failure, deadlock: the transaction may succeed when run again."""


def is_away(error: BaseException, *, is_closed: bool = False) -> bool:
    """Tell whether the error says that the server, not the statement, is the trouble.

    is_closed: the connection has ended since; then asyncpg's own errors about its state count too.
    """
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        return (code[:2] in _AWAY_CLASSES and code != _QUERY_CANCELED) or code in _AWAY_CODES
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return is_closed
    return isinstance(error, OSError | EOFError)  # TimeoutError is an OSError


def is_own_trouble(error: BaseException, *, is_closed: bool = False) -> bool:
    """Tell the same for a statement of ours, which nobody but the server can have made fail."""
    return is_away(error, is_closed=is_closed) or (
        isinstance(error, asyncpg.PostgresError) and error.sqlstate in _OWN_CODES
    )


def is_conflict(error: BaseException | None) -> bool:
    """Tell whether an error, or the cause of one, says that the transaction lost against another. Whatever the driver:
    asyncpg and psycopg 3 name the code `sqlstate`, psycopg 2 `pgcode`; SQLAlchemy raises its own from theirs."""
    while error is not None:
        if (getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)) in _CONFLICT_CODES:
            return True
        error = error.__cause__
    return False


def is_table_missing(error: BaseException) -> bool:
    """Tell whether a table or schema of the statement does not exist."""
    return isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError)


def unavailable(store: str, error: BaseException) -> StoreUnavailable:
    """Return our error for one of theirs."""
    text = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    if "unsupported startup parameter" in text:
        text += "; behind PgBouncer set SPOOLPROOF_LISTEN=off"
    return StoreUnavailable(f"{store}: {text}")


def outbox_missing(store: str) -> OutboxMissing:
    """Return the error for a database without our tables."""
    text = "the database has no table spoolproof.outbox"
    return OutboxMissing(f"{text}; the store is {store}: pass a transaction of it, or run: spoolproof migrate")
