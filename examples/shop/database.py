"""SQLAlchemy on the service's own store, so that a row and its event are one commit.

SQLite needs telling: by default its driver begins transactions late and upgrades them, which fails under load. And
every connection to the store's file has to use the settings Spoolproof uses, or it undoes their durability.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from shop.dependencies import database

SQLITE_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",  # what was answered survives a power cut
    "wal_autocheckpoint = 0",  # Spoolproof checkpoints; two who do can damage the file (sqlite.org/wal.html)
    "busy_timeout = 5000",
    "foreign_keys = ON",
)


class DatabaseAway(Exception):
    """The database did not answer, or not clearly: nothing happened, or the commit may have."""

    failure_kind = "transient"  # this is how an error tells the policies what it means
    is_unknown = True


def open_engine(store_url: str) -> AsyncEngine:
    """Return an engine on a `sqlite:///` or `postgresql://` store."""
    url = make_url(store_url)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url.set(drivername="sqlite+aiosqlite"))
    return create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        pool_timeout=5,
        connect_args={"timeout": 3, "command_timeout": 5},
    )


def _open_sqlite(url: Any) -> AsyncEngine:
    # SQLite has one writer: waiting for the one connection is fairer than waiting for the file's lock
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for setting in SQLITE_SETTINGS:
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """Open a session and commit it at the end of the block.

    Raises DatabaseAway, and BreakerOpen at once while the database is known to be away; other errors pass as they are.
    """
    session = AsyncSession(engine, expire_on_commit=False)
    async with database.permit(), translated(), session, session.begin():
        yield session


async def check(engine: AsyncEngine) -> None:
    """Ask the database whether it is there, past the breaker. Raises DatabaseAway."""
    async with translated(), engine.connect() as connection:
        await connection.execute(text("select 1"))


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise  # the statement is wrong, not the database
    except (DBAPIError, PoolTimeout, OSError, TimeoutError) as error:
        raise DatabaseAway(str(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # raised as they are while connecting
        raise DatabaseAway(str(error)) from error
