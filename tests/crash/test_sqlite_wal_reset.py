"""L21: several processes commit to and checkpoint one SQLite file while they are killed at random instants.

Checkpoints every few pages, so that commits start the log over thousands of times beside them: what SQLite 3.7.0 to
3.51.2 can turn into lost rows or a damaged file when a process breaks the checkpoint rule.

It shows that writing, dying and recovering together lose nothing. It does not show the rule to be needed: the race is
so narrow that 40 s with the rule taken out passed as well. The rule is pinned in tests/unit/sqlite/test_file.py.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from spoolproof.clock import SystemClock

pytestmark = pytest.mark.crash

SECONDS = float(os.environ.get("SPOOLPROOF_WAL_SECONDS", "10"))
PROOF_SECONDS = 60.0
WRITERS = 3
CHECKPOINT_PAGES = 20
CLOCK = SystemClock()


class Writers:
    """The processes, each with a ledger of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "shared.db"
        self._ledgers = directory / "ledgers"
        self._ledgers.mkdir()
        self._numbers = itertools.count()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        name = f"w{next(self._numbers)}"
        script = Path(__file__).with_name("sqlite_writer.py")
        arguments = [self.path, self._ledgers / name, name, CHECKPOINT_PAGES]
        self._processes.append(subprocess.Popen([sys.executable, str(script), *map(str, arguments)]))

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self._processes.remove(process)

    def kill_one(self, choose: random.Random) -> None:
        self.kill(choose.choice(self._processes))

    def kill_all(self) -> None:
        for process in list(self._processes):
            self.kill(process)

    def ended(self) -> list[int]:
        """Return the exit codes of those that ended by themselves."""
        return [code for process in self._processes if (code := process.poll()) is not None]

    def acknowledged(self) -> set[str]:
        return {
            line
            for ledger in self._ledgers.iterdir()
            for line in ledger.read_text().split("\n")[:-1]  # the last is empty, or a line cut by the kill
        }


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Writers]:
    writers = Writers(tmp_path)
    with closing(sqlite3.connect(writers.path)) as connection:
        connection.execute("create table item (id integer primary key, name text unique, body blob) strict")
    yield writers
    writers.kill_all()


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(SECONDS, marks=pytest.mark.timeout(SECONDS + 60)),
        pytest.param(PROOF_SECONDS, marks=[pytest.mark.proof, pytest.mark.timeout(PROOF_SECONDS + 60)]),
    ],
)
async def test_nothing_acknowledged_is_lost_while_processes_write_checkpoint_and_die(
    writers: Writers, seconds: float
) -> None:
    """Every row whose commit was reported is there, once, in a file without damage."""
    choose = random.Random(21)
    kills = 0
    for _ in range(WRITERS):
        writers.start()

    deadline = CLOCK.monotonic() + seconds
    while CLOCK.monotonic() < deadline:
        # the start of a process takes a third of a second: long enough to write, short enough to die in its start
        await asyncio.sleep(choose.uniform(0.01, 0.6))
        assert [] == writers.ended()
        writers.kill_one(choose)
        writers.start()
        kills += 1
    writers.kill_all()

    acknowledged = writers.acknowledged()
    with closing(sqlite3.connect(writers.path)) as connection:
        stored = [name for (name,) in connection.execute("select name from item")]
        damage = connection.execute("pragma integrity_check").fetchall()
    figures = f"{kills} kills, {len(acknowledged)} acknowledged, {len(stored)} stored"
    assert [("ok",)] == damage, figures
    assert set() == acknowledged - set(stored), figures
    assert len(set(stored)) == len(stored)
    assert len(acknowledged) > 50 * seconds, figures
