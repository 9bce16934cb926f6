"""kill -9 in the middle of a bulk replay of 500, and a restart: each was replayed once, and the counts add up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

NODE = Path(__file__).with_name("bulk_node.py")


def _run(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    own = {"SPOOLPROOF_DATA_DIR": str(folder), "SPOOLPROOF_LEASE_SECONDS": "1", "SPOOLPROOF_MIGRATE": "auto"}
    return subprocess.run(
        [sys.executable, str(NODE)],
        cwd=folder,
        env={**inherited, **own, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def _survives(folder: Path, plan: str, environment: dict[str, str]) -> None:
    killed = _run(folder, {**environment, "SPOOLPROOF_FAILPOINTS": plan})
    assert -signal.SIGKILL == killed.returncode, killed.stderr[-3000:]

    ended = _run(folder, environment)

    assert 0 == ended.returncode, ended.stderr[-3000:]
    expected = {"effects": list(range(500)), "replayed": 500, "bulk": ["done", 500, 500, 0]}
    assert expected == json.loads((folder / "report.json").read_text())


@pytest.mark.crash
@pytest.mark.timeout(150)
@pytest.mark.parametrize("plan", ["bulk.after_move=kill@1", "bulk.after_move=kill@5"])
def test_a_bulk_goes_on_where_its_process_died(tmp_path: Path, plan: str) -> None:
    """With the canary out, and in the middle; whoever started it has long gone home."""
    _survives(tmp_path, plan, {})


@pytest.mark.crash
@pytest.mark.servers
@pytest.mark.timeout(150)
def test_a_bulk_goes_on_where_its_process_died_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    """A portion is one transaction there too."""
    _survives(tmp_path, "bulk.after_move=kill@5", {"SPOOLPROOF_STORE": postgres_url})
