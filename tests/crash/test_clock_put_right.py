"""The clock was an hour ahead, the process was killed, the clock was put right: the next process works at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

NODE = Path(__file__).with_name("clock_node.py")
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
AHEAD = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+1h", "DONT_FAKE_MONOTONIC": "1"}


def first_word(directory: Path, **environment: str) -> str:
    """Return what a node says first; it is killed then."""
    node = subprocess.Popen(
        [sys.executable, str(NODE), str(directory)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert node.stdout is not None
        return node.stdout.readline()
    finally:
        node.kill()
        node.communicate()


@pytest.mark.timeout(30)  # it took an hour
def test_a_clock_put_right_stops_nothing(tmp_path: Path) -> None:
    """The lease of the dead process was judged by the wall clock, which it was an hour ahead of."""
    if FAKETIME is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("install it with: apt-get install faketime")

    assert ["delivered\n"] * 2 == [first_word(tmp_path, **AHEAD), first_word(tmp_path)]
