"""A whole service whose every lock fails for a while: it says so, is back when they work, and ends when told to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

FAULTY = Path(__file__).with_name("faulty_locks.py")


class Faulty:
    """The process, and how to hear it."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(FAULTY), str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == f"{word}\n":
                return
        pytest.fail(f"never said {word}; it ended with {self.process.wait()}: {self.process.communicate()[1]}")

    def turn_faults(self) -> None:
        self.process.send_signal(signal.SIGUSR1)


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    made = Faulty(tmp_path)
    yield made
    made.process.kill()
    made.process.communicate()


def test_it_goes_on_when_the_locks_work_again(faulty: Faulty) -> None:
    """One EIO stopped the writer of the store or of the broker for ever; the process looked well and did nothing."""
    faulty.hear("delivered")
    faulty.turn_faults()
    faulty.hear("away")

    faulty.turn_faults()

    faulty.hear("stored")
    faulty.hear("delivered")


def test_it_ends_when_told_to_while_they_fail(faulty: Faulty) -> None:
    """SIGTERM did nothing: the drain waited for a writer that was no more."""
    faulty.hear("delivered")
    faulty.turn_faults()
    faulty.hear("away")

    faulty.process.send_signal(signal.SIGTERM)
    faulty.process.communicate(timeout=30)  # 2 s for the drain and 15 s for the rest, on a busy machine

    assert faulty.process.returncode == 0
