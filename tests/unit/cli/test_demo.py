"""The child that `spoolproof demo` starts, with children that do little."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from spoolproof.cli.groups.demo import run_child


@pytest.mark.parametrize(
    ("code", "result"),
    [("", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 1)],
)
def test_the_childs_end_is_the_commands_end(code: str, result: int) -> None:
    """CI reads the demo's verdict from the exit code."""
    assert result == run_child([sys.executable, "-c", code])


def test_sigterm_reaches_the_child(tmp_path: Path) -> None:
    """The demo kills processes of its own; ended from outside it must get the chance to tidy up."""
    told = tmp_path / "told"
    code = f"""
import os, signal, sys
def tidy(*_):
    open({str(told)!r}, "w").close()
    sys.exit(5)
signal.signal(signal.SIGTERM, tidy)
os.kill({os.getpid()}, signal.SIGTERM)
signal.pause()
"""
    before = signal.getsignal(signal.SIGTERM)

    assert 5 == run_child([sys.executable, "-c", code])
    assert told.exists()
    assert before == signal.getsignal(signal.SIGTERM)
