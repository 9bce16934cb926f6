"""Faults that happen, and children that never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from spoolproof.testing.demo.processes import DidNotFire, Process


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = Process("sleeper", ["sleep", "60"], folder=tmp_path, environment=dict(os.environ))
    process.start()
    yield process
    process.end()


def test_a_kill_ends_the_process_by_sigkill_and_it_can_start_again(sleeper: Process) -> None:
    """The fault is what it says, not a polite request."""
    sleeper.kill()
    assert -signal.SIGKILL == sleeper.exit_code

    sleeper.start()
    assert sleeper.is_running


def test_a_fault_aimed_at_a_dead_process_did_not_fire(sleeper: Process) -> None:
    """Otherwise a run in which nothing was broken would pass."""
    sleeper.kill()

    with pytest.raises(DidNotFire, match="sleeper does not run"):
        sleeper.kill()
    with pytest.raises(DidNotFire, match="sleeper does not run"):
        sleeper.freeze()


def test_a_frozen_process_stands_still_until_it_is_thawed_and_can_still_be_stopped(sleeper: Process) -> None:
    """SIGSTOP is not seen at once: the strike returns when it is."""
    sleeper.freeze()
    assert sleeper.is_running

    assert -signal.SIGTERM == sleeper.stop()


def test_a_child_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    """A demo that was killed must not leave a shop behind."""
    script = (
        "import os, sys, time; from pathlib import Path; from spoolproof.testing.demo.processes import Process\n"
        "child = Process('child', ['sleep', '60'], folder=Path(sys.argv[1]), environment=dict(os.environ))\n"
        "child.start(); print(child._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))

        parent.kill()
        deadline = time.monotonic() + 10
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)

    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
