"""The task platform as a process, on the embedded default: what its README says one sees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spoolproof.testing.servers.ports import free_port, release_port

pytestmark = pytest.mark.acceptance

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[httpx.Client]:
    port = free_port()
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ", "REDIS"))
    }
    own = {"PYTHONPATH": str(EXAMPLES), "TASKS_FAULTS": "1", "TASKS_OVERDUE_EVERY": "1s", "TASKS_PROFILE_TTL": "0.1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "tasks.app:app", "--port", str(port), "--log-level", "warning"],
            cwd=tmp_path,
            env={**clean, **own},
            stdout=log,
            stderr=log,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait(lambda: _answers(client), "the service to start")
                yield client
        finally:
            process.terminate()
            process.wait(60)
            release_port(port)


@pytest.mark.timeout(120)
def test_what_is_taken_away_is_answered_for(tasks: httpx.Client) -> None:
    tasks.put("/users/u-1", json={"name": "Ada", "email": "ada@shop.example"}).raise_for_status()
    live = tasks.get("/users/u-1")
    tasks.post("/faults", params={"database": "away", "export": "hangs"})
    wait(lambda: "cached" == tasks.get("/users/u-1").headers["Tasks-Rung"], "the profile to be stale")
    cached, unknown = tasks.get("/users/u-1"), tasks.get("/users/u-2")

    assert ("live", "Ada") == (live.headers["Tasks-Rung"], live.json()["name"])
    assert (200, "Ada") == (cached.status_code, cached.json()["name"])
    assert ("default", "the database is away") == (unknown.headers["Tasks-Rung"], unknown.json()["why"])

    hanging = tasks.post("/exports", json=["u-1", "u-2", "u-3"]).json()["batch_id"]
    told, untold = (
        tasks.post("/tasks", json={"user_id": "u-1", "title": title}).json()["id"] for title in ("Write", " ")
    )
    wait(lambda: tasks.get(f"/tasks/{told}").json()["notified_at"] is not None, "the task to be notified")
    wait(lambda: any(one["invalid"] for one in _batches(tasks)), "the other to be found invalid")
    assert tasks.get(f"/tasks/{untold}").json()["notified_at"] is None
    assert 202 == tasks.get(f"/batches/{hanging}").status_code

    tasks.post("/faults", params={"database": "well", "export": "well"})
    wait(lambda: tasks.get(f"/batches/{hanging}").status_code == 200, "the exports to end")
    wait(lambda: "live" == tasks.get("/users/u-1").headers["Tasks-Rung"], "the profile to be live")


def _batches(tasks: httpx.Client) -> list[dict[str, Any]]:
    return [one for one in tasks.get("/batches").json() if one["job"] == "notify"]


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/live").status_code == 200
    except httpx.TransportError:
        return False


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited 60 s for {what}"
        time.sleep(0.05)
