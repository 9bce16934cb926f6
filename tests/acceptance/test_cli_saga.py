"""`spoolproof saga` as an operator types it: what asks, why, and what an answer does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spoolproof import Service, Settings
from spoolproof.saga import Flow, SagaInReview, Step

URL = "sqlite:///store.db"


def shop() -> tuple[Service, list[str]]:
    service, calls = Service("shop", settings=Settings(store=URL)), []  # type: ignore[arg-type]
    order = service.saga("order", version=1)

    @order.step(effect="once", why="a label can be thrown away")
    async def label(step: Step, given: object) -> str:
        calls.append(step.key)
        raise TimeoutError("no answer")

    @order.flow
    async def place(saga: Flow, given: object) -> object:
        parcel = await saga.do(label)
        return [parcel, await saga.wait("shipped", timeout=3600)]

    return service, calls


async def run(seconds: float = 20) -> Any:
    service, _ = shop()
    await service.start()
    try:
        handle = await service.saga.start("order", {"n": 1}, id="o-1")
        return await handle.result(timeout=seconds)
    finally:
        await service.drain(1)
        await service.stop()


def cli(folder: Path, *words: str, exit_code: int = 0, group: str = "saga") -> dict[str, Any]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    done = subprocess.run(
        [sys.executable, "-m", "spoolproof", group, *words, "--json"],
        cwd=folder,
        env={**clean, "SPOOLPROOF_STORE": URL},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert exit_code == done.returncode, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[0]))


@pytest.mark.timeout(120)
def test_a_question_is_seen_answered_and_the_saga_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator sees what is not known, looks at the carrier, and says so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SagaInReview, match="not known"):
        asyncio.run(run())

    (listed,) = cli(tmp_path, "ls", "--state", "in_review")["sagas"]
    id = listed["id"]
    shown = cli(tmp_path, "show", id)
    review = shown["saga"]["question"]["review"]
    (item,) = cli(tmp_path, "ls", group="review")["items"]
    resolve = ["resolve", review, "--reason", "seen at the carrier"]
    asking = cli(tmp_path, "retry", id, "--reason", "x", exit_code=4)
    unknown = cli(tmp_path, "show", "nothing", exit_code=1)
    answered = cli(tmp_path, *resolve, "landed", "--set", 'output="l-1"', group="review")["item"]
    signalled = cli(tmp_path, "signal", id, "shipped", "--body", '{"n": 1}', "--id", "m")["is_new"]
    retried = cli(tmp_path, "retry", id, "--reason", "now")
    result = asyncio.run(run())

    question = shown["saga"]["question"]
    assert ("unknown_outcome", "label", item["id"]) == (question["kind"], question["step"], review)
    assert ("saga.unknown_outcome", "order/o-1") == (item["kind"], item["subject"])
    assert ["landed", "not_landed", "compensate"] == item["actions"]
    assert ["input", "label"] == [step["name"] for step in shown["steps"]]
    assert f"spoolproof review resolve {review} retry" == asking["error"]["hint"]
    assert ["refused", "not_found"] == [one["error"]["code"] for one in (asking, unknown)]
    assert ("resolved", "running", True) == (answered["state"], retried["state"], signalled)
    assert ["l-1", {"n": 1}] == result
    assert "completed" == cli(tmp_path, "show", id)["saga"]["state"]
