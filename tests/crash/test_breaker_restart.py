"""A process killed while a breaker is open does not run into the outage again: Q23, with real processes and a file."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

NODE = Path(__file__).with_name("breaker_node.py")
OPEN_SECONDS = 20.0


class Node:
    """One life of the process."""

    def __init__(self, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "CB_"))}
        self._log = (folder / "node.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(NODE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**kept, "SPOOLPROOF_DATA_DIR": str(folder), "SPOOLPROOF_LEASE_SECONDS": "1"},
            cwd=folder,
            text=True,
        )
        self.first = self._read()

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, Path(self._log.name).read_text()
        return dict(json.loads(line))

    def kill(self) -> None:
        self.process.kill()
        self._close()

    def stop(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._close()

    def _close(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            assert pipe is not None
            pipe.close()


class Lives:
    """The lives of one service on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._node: Node | None = None

    def start(self) -> Node:
        self.end()
        self._node = Node(self.folder)
        return self._node

    def end(self) -> None:
        if self._node is not None and self._node.process.poll() is None:
            self._node.kill()
        self._node = None

    def until_saved(self) -> None:
        until(lambda: bool(self.execute("select 1 from spoolproof_state where name = 'psp'")), "the breaker is saved")

    def execute(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "store.db", timeout=5)) as database, database:
            return database.execute(sql).fetchall()


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15.0
    while not is_so():
        assert time.monotonic() < deadline, f"not within 15 s: {what}"
        time.sleep(0.01)


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path)
    yield lives
    lives.end()


def test_a_breaker_open_at_a_kill_is_open_for_the_remaining_time_after_the_restart(lives: Lives) -> None:
    """Q23: the restart asks the dependency nothing; the time that passed while nothing ran counts."""
    opened = lives.start().ask("fail")
    lives.until_saved()
    lives.end()
    restarted = lives.start()
    answer = restarted.ask("call")

    assert ("open", 3) == (opened["state"], opened["reached"])
    assert "open" == restarted.first["state"]
    assert 0 < restarted.first["seconds"] < opened["seconds"] <= OPEN_SECONDS
    assert ("BreakerOpen", 0) == (answer["error"], answer["reached"])


def test_a_second_kill_loses_nothing_of_it(lives: Lives) -> None:
    """A crash loop must not become a hammer."""
    lives.start().ask("fail")
    lives.until_saved()
    for _ in range(2):
        lives.end()
        restarted = lives.start()

    assert ("open", 0) == (restarted.first["state"], restarted.first["reached"])


@pytest.mark.parametrize(
    "value", [b"\x00\xff", b'{"key": null, "snapshot": {"version": 2, "state": "open", "saved_at": 4e9}}']
)
def test_a_damaged_or_future_snapshot_starts_closed(lives: Lives, value: bytes) -> None:
    """Q23: it is a kindness to the dependency, never a reason not to start."""
    lives.start().ask("fail")
    lives.until_saved()
    lives.end()
    lives.execute(f"update spoolproof_state set value = x'{value.hex()}'")

    assert "closed" == lives.start().first["state"]


def test_an_isolation_holds_in_every_process_and_after_a_kill_until_somebody_releases_it(lives: Lives) -> None:
    """An operator says it once, to whichever process answers."""
    asked = Node(lives.folder)
    try:
        other = lives.start()
        asked.ask("isolate")
        until(lambda: other.ask("look")["state"] == "isolated", "the other process has heard of the isolation")
        lives.until_saved()
        lives.end()
        restarted = lives.start()
        assert ("isolated", 0) == (restarted.first["state"], restarted.ask("call")["reached"])
        asked.ask("release")
    finally:
        asked.stop()

    until(lambda: restarted.ask("look")["state"] == "half_open", "the restarted process has heard of the release")
