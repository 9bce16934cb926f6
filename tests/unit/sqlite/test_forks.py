"""A forked child that outlives its parent: it holds nothing up, and spoils nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoolproof.errors import StoreUnavailable
from spoolproof.sqlite import Database
from spoolproof.sqlite.checkpoint import WriterLock
from spoolproof.sqlite.lockfile import holders

pytestmark = pytest.mark.crash

FORKING = Path(__file__).with_name("forking.py")


@pytest.fixture
def forking(database: Database, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the file of `database` open, has forked, and writes."""
    process = subprocess.Popen(
        [sys.executable, str(FORKING), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


async def test_an_orphan_keeps_no_lock_and_spoils_no_row(
    database: Database, path: Path, forking: subprocess.Popen[str]
) -> None:
    """An idle pool worker kept the writer's lock of its killed parent: no process could start or write, until somebody
    found the worker."""
    assert forking.stdout is not None
    assert forking.stdin is not None
    orphan = int(forking.stdout.readline())
    assert forking.stdout.readline() == "writing\n"
    forking.kill()
    await asyncio.to_thread(os.waitid, os.P_PID, forking.pid, os.WEXITED | os.WNOWAIT)
    os.kill(orphan, 0)  # it is there

    try:
        async with asyncio.timeout(4):  # less than the time after which a locked file is an outage
            await database.write(lambda db: db.execute("insert into item values ('after', x'')"))
            forking.stdin.write("\n")
            forking.stdin.flush()
            answer = await asyncio.to_thread(forking.stdout.read)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself, as it should
            os.kill(orphan, signal.SIGKILL)

    assert f"was opened by the parent of process {orphan}, which was forked" in answer
    found = await database.read(lambda db: [name for (name,) in db.execute("select name from item")])
    assert {"by the parent", "after"} <= set(found)
    assert "by the child" not in found
    assert [("ok",)] == await database.write(lambda db: db.execute("pragma integrity_check").fetchall())


async def test_the_holder_of_a_lock_is_named(database: Database, path: Path) -> None:
    """Whoever finds a file locked must be able to find out by whom."""
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLD, f"{path}.writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holding.stdout is not None
    holding.stdout.readline()
    lock = WriterLock(path, _Sleepless())

    with pytest.raises(StoreUnavailable, match=f"by process {holding.pid}; end it if it hangs"):
        lock.acquire(0.001)

    lock.close()
    holding.communicate("")
    assert [] == holders(Path(f"{path}.writer"))


HOLD = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class _Sleepless:
    def submit(self, job: Callable[[], None]) -> None:
        job()

    def pause(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass
