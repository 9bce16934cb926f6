"""A database file with one table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spoolproof.clock import SystemClock
from spoolproof.sqlite import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """In a directory that is not there yet."""
    return tmp_path / "data" / "some.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    """Transactions may last 0.2 s, so that a test can wait for the end of one."""
    database = Database(path, clock=SystemClock(), transaction_seconds_max=0.2)
    await database.start()
    await database.write(lambda db: db.execute("create table item (name text primary key, body blob) strict"))
    yield database
    await database.stop()
