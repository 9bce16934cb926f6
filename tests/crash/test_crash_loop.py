"""A message that ends its process: three times, then it is a dead letter, and its neighbours were handled once each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NODE = Path(__file__).with_name("crash_loop_node.py")
ROW_NODE = Path(__file__).with_name("row_loop_node.py")
INNOCENT = list(range(1, 9))


def run_until_it_lives(
    folder: Path, way: str, environment: dict[str, str], node: Path = NODE
) -> tuple[int, dict[str, list[object]]]:
    """Restart the node as an orchestrator does; returns how often it died and its last words."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    environment = {
        **inherited,
        "SPOOLPROOF_DATA_DIR": str(folder),
        "SPOOLPROOF_LEASE_SECONDS": "1",
        "SPOOLPROOF_STORE": f"sqlite:///{folder}/store.db",
        **environment,
    }
    for deaths in range(8):
        ended = subprocess.run(
            [sys.executable, str(node), way], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
        )
        if ended.returncode == 0:
            return deaths, json.loads((folder / "report.json").read_text())
    raise AssertionError(f"it still dies: {ended.returncode}\n{ended.stderr[-3000:]}")


@pytest.mark.crash
@pytest.mark.timeout(150)
def test_a_message_that_ends_its_process_is_given_up_at_the_third_time(tmp_path: Path) -> None:
    """Before, it ended the process for ever, with every restart, and nobody was told."""
    deaths, report = run_until_it_lives(tmp_path, "exit", {})

    assert {"effects": INNOCENT, "reasons": ["crash_loop"]} == report
    assert 3 == deaths == len((tmp_path / "killed").read_text())


@pytest.mark.crash
@pytest.mark.servers
@pytest.mark.timeout(150)
def test_a_message_that_ends_its_process_is_given_up_on_rabbitmq(tmp_path: Path, rabbitmq_url: str) -> None:
    """Its delivery count is the broker's there. Killed before its delete, the relay has sent the message twice, and the
    first delivery of the second copy is nobody's suspect either."""
    deaths, report = run_until_it_lives(tmp_path, "kill", {"SPOOLPROOF_BROKER": rabbitmq_url})

    assert {"effects": INNOCENT, "reasons": ["crash_loop"]} == report
    assert deaths in (3, 4)
    assert deaths == len((tmp_path / "killed").read_text())


@pytest.mark.crash
@pytest.mark.timeout(150)
def test_a_row_that_ends_the_process_that_publishes_it_is_given_up(tmp_path: Path) -> None:
    """Its relay ended with every start, and nothing behind the row was ever shipped. Twice unseen, then three times by
    itself, so that no neighbour is suspected."""
    deaths, report = run_until_it_lives(tmp_path, "kill", {}, ROW_NODE)

    assert {"effects": [n for n in range(60) if n != 10], "reasons": ["crash_loop"]} == report
    assert 5 == deaths == len((tmp_path / "killed").read_text())
