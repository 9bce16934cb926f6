"""Killed anywhere between question and effect, or in the middle of a run: both or neither, and everything once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.crash
DECISIONS = [
    "review.after_open",
    "review.before_park",
    "review.after_park",
    "review.before_resolve",
    "review.before_commit",
    "review.after_resolve",
    "review.before_resolve=kill@2",
    "review.before_commit=kill@2",
]
STEPS = [
    "reconciliation.after_read=kill@2",
    "reconciliation.before_repair=kill@1",
    "reconciliation.before_repair=kill@7",
    "reconciliation.after_repair=kill@7",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("store", "point"), [*(("sqlite", one) for one in DECISIONS), *(("postgres", one) for one in DECISIONS[2:6])]
)
def test_a_decision_and_its_effect_are_both_there_or_neither(
    store: str, point: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An order approved, a parked message sent again, each once, through SQLite or PostgreSQL and the embedded broker;
    the trail is whole."""
    settings = _settings(store, request)
    assert -signal.SIGKILL == _node(tmp_path, "decide", settings, point)[0]

    code, report = _node(tmp_path, "decide", settings)

    assert 0 == code
    assert ["approved o-1", "placed o-1", "told o-1"] == report["effects"]
    assert [["message", "resolved"], ["order.flagged", "resolved"]] == report["items"]
    assert {"checked": 2, "faults": []} == report["verify"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("store", "point"), [*(("sqlite", one) for one in STEPS), *(("postgres", one) for one in STEPS[::2])]
)
def test_a_run_goes_on_where_it_was_killed(
    store: str, point: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One run, each thing repaired once, and the numbers as if nothing had happened."""
    settings = _settings(store, request)
    assert -signal.SIGKILL == _node(tmp_path, "reconcile", settings, point)[0]

    code, report = _node(tmp_path, "reconcile", settings)

    assert 0 == code
    assert [["new", 1]] == report["things"]
    counts = {"seen": 30, "seen_ours": 30, "seen_theirs": 30, "equal": 0, "repaired": 30, "reviewed": 0, "skipped": {}}
    assert [counts] == report["runs"]


@pytest.mark.timeout(60)
def test_a_check_that_was_not_recorded_is_made_again(tmp_path: Path) -> None:
    """A mark is there until the store knows that it is settled."""
    assert -signal.SIGKILL == _node(tmp_path, "mark", {}, "reconciliation.after_check")[0]

    code, report = _node(tmp_path, "mark", {})

    assert (0, ["checked o-1", "checked o-1"]) == (code, report["effects"])


def _settings(store: str, request: pytest.FixtureRequest) -> dict[str, str]:
    return {"SPOOLPROOF_STORE": request.getfixturevalue("postgres_url")} if store == "postgres" else {}


def _node(folder: Path, what: str, settings: dict[str, str], point: str = "") -> tuple[int, dict[str, Any]]:
    """Run a node to its end or death; returns its exit code and report."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    own = {"SPOOLPROOF_DATA_DIR": str(folder), "SPOOLPROOF_LEASE_SECONDS": "1", "SPOOLPROOF_MIGRATE": "auto"}
    if point:
        own["SPOOLPROOF_FAILPOINTS"] = point if "=" in point else f"{point}=kill"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("review_node.py")), what],
        cwd=folder,
        env={**inherited, **own, **settings},
        capture_output=True,
        text=True,
        timeout=45,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout) if done.stdout else {}
