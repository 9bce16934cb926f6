"""Savepoints of our own transactions, in the SQL that PostgreSQL and SQLite share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spoolproof.ports.transaction import StoreTransaction


@asynccontextmanager
async def savepoint(tx: StoreTransaction) -> AsyncIterator[None]:
    """Open a savepoint: released when the block ends, rolled back when it raises."""
    await tx.execute("savepoint spoolproof")  # of several with one name the last counts, so they nest
    try:
        yield
    except BaseException:
        await tx.execute("rollback to savepoint spoolproof")
        await tx.execute("release savepoint spoolproof")
        raise
    await tx.execute("release savepoint spoolproof")


def sets_savepoint(sql: str) -> bool:
    """Tell whether a statement may set a savepoint; True for some that do not."""
    return "savepoint" in sql.lower()
