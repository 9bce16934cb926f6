"""A batch with every item state at once, killed at each boundary: the counts add up and no item ran unrecorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.crash
POINTS = [
    "batch.after_submit",
    "outbox.after_commit",
    "consumer.after_handler=kill@2",
    "batch.after_item=kill@2",
    "consumer.after_commit=kill@2",
    "dead_letter.after_record",
    "batch.after_failed",
    "retry.after_copy",
    "batch.before_end",
    "batch.after_end",
]
PARKS = ["consumer.after_handler=kill@2", "review.before_park", "review.after_park", "batch.after_item=kill@3"]
IN_TEST = {"batch.after_submit", "batch.after_item=kill@2", "batch.after_failed", "batch.before_end", "batch.after_end"}
CASES = [
    *(("sqlite", "keyed", point) for point in POINTS),
    *(("sqlite", "once", point) for point in PARKS),
    *(("postgres", "keyed", point) for point in POINTS),
    *(("postgres", "once", point) for point in PARKS),
]


def _is_in_test(store: str, effect: str, point: str) -> bool:
    if store == "sqlite":
        return point in IN_TEST if effect == "keyed" else point in PARKS[:2]
    return point == "batch.after_item=kill@2"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("store", "effect", "point"),
    [pytest.param(*case, marks=[] if _is_in_test(*case) else pytest.mark.proof) for case in CASES],
)
def test_no_item_runs_unrecorded(
    store: str, effect: str, point: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = _settings(store, request)
    assert -signal.SIGKILL == _node(tmp_path, [effect], settings, point)[0]

    code, report = _node(tmp_path, [effect], settings)

    assert (0, 9) == (code, sum(report["counts"].values()))
    _check(tmp_path, report, effect, failed={"never-1", "never-6"})
    assert [["finished", 9]] == report["ends"], "told once"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.proof)])
def test_a_replay_that_is_killed_can_be_given_again(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Killed with items pending again whose dead letters are open: they are found, and the next replay sends them."""
    settings = _settings(store, request)
    assert 0 == _node(tmp_path, ["keyed"], settings)[0]
    assert -signal.SIGKILL == _node(tmp_path, ["keyed", "replays"], settings, "batch.after_reopen")[0]

    code, report = _node(tmp_path, ["keyed", "replays"], settings)

    assert (0, 0) == (code, report["open"])
    _check(tmp_path, report, "keyed", failed=set())


def _check(folder: Path, report: dict[str, Any], effect: str, *, failed: set[str]) -> None:
    states = report["states"]
    ran = defaultdict(list)
    for line in (folder / "ran").read_text().splitlines():
        id, key = line.split()
        ran[id].append(key)
    assert {"pending": 0, "invalid": 1} == {state: report["counts"][state] for state in ("pending", "invalid")}
    assert "invalid" == states["invalid-3"]
    assert "invalid-3" not in ran
    assert all(len(set(keys)) == 1 for keys in ran.values()), "one key an item"
    unknown = {id for id, state in states.items() if state == "unknown"}
    assert states.keys() - {"invalid-3"} - ran.keys() <= unknown, "killed between its claim and its first line"
    assert failed - unknown == {id for id, state in states.items() if state == "failed"}
    if effect == "once":
        assert "unknown-4" in unknown
        assert report["asked"] == report["reviews"], "a person is asked about each, and only about those"
        again = ("again", "never")  # the job itself has said that nothing happened
        assert [] == [id for id in ran if not id.startswith(again) and len(ran[id]) > 1]
    else:
        assert set() == unknown
        assert len(failed) == report["open"]


def _settings(store: str, request: pytest.FixtureRequest) -> dict[str, str]:
    return {"SPOOLPROOF_STORE": request.getfixturevalue("postgres_url")} if store == "postgres" else {}


def _node(folder: Path, what: list[str], settings: dict[str, str], point: str = "") -> tuple[int, dict[str, Any]]:
    """Run a node to its end or death; returns its exit code and report."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    own = {"SPOOLPROOF_DATA_DIR": str(folder), "SPOOLPROOF_LEASE_SECONDS": "1", "SPOOLPROOF_MIGRATE": "auto"}
    if point:
        own["SPOOLPROOF_FAILPOINTS"] = point if "=" in point else f"{point}=kill"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("batch_node.py")), *what],
        cwd=folder,
        env={**inherited, **own, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout) if done.stdout else {}
