"""`spoolproof saga` as an operator types it: what asks, why, and what an answer does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from spoolproof import Service, Settings
from spoolproof.cli.app import invoke
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


OTHER = Service("shop", settings=Settings(store=URL))  # type: ignore[arg-type]
"""A later release, without a step that live orders have begun."""


@OTHER.saga("order", version=1).flow
async def place_without_a_label(saga: Flow, given: object) -> None: ...


async def run(seconds: float = 20) -> Any:
    service, _ = shop()
    await service.start()
    try:
        handle = await service.saga.start("order", {"n": 1}, id="o-1")
        return await handle.result(timeout=seconds)
    finally:
        await service.drain(1)
        await service.stop()


class Cli:
    """The command line, in this process: a start of Python for each word would take minutes on a busy machine."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str, exit_code: int = 0, group: str = "saga") -> dict[str, Any]:
        self._capsys.readouterr()
        code = invoke([group, *words, "--json"])
        told = self._capsys.readouterr()
        assert exit_code == code, told.out + told.err
        return dict(json.loads(told.out.splitlines()[0]))


@pytest.mark.timeout(120)
def test_a_question_is_seen_answered_and_the_saga_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator sees what is not known, looks at the carrier, and says so."""
    cli = Cli(capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOOLPROOF_STORE", URL)
    with pytest.raises(SagaInReview, match="not known"):
        asyncio.run(run())

    (listed,) = cli("ls", "--state", "in_review")["sagas"]
    id = listed["id"]
    shown = cli("show", id)
    review = shown["saga"]["question"]["review"]
    (item,) = cli("ls", group="review")["items"]
    resolve = ["resolve", review, "--reason", "seen at the carrier"]
    asking = cli("retry", id, "--reason", "x", exit_code=4)
    module = f"{Path(__file__).stem}"
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    deploys = cli("check-deploy", f"{module}:OTHER", exit_code=4)
    unknown = cli("show", "nothing", exit_code=1)
    answered = cli(*resolve, "landed", "--set", 'output="l-1"', group="review")["item"]
    signalled = cli("signal", id, "shipped", "--body", '{"n": 1}', "--id", "m")["is_new"]
    retried = cli("retry", id, "--reason", "now")
    result = asyncio.run(run())

    question = shown["saga"]["question"]
    assert ("unknown_outcome", "label", item["id"]) == (question["kind"], question["step"], review)
    assert ("saga.unknown_outcome", "order/o-1") == (item["kind"], item["subject"])
    assert ["landed", "not_landed", "compensate"] == item["actions"]
    (stranded,) = deploys["stranded"]
    assert (1, "label", 1) == (deploys["sagas"], stranded["step"], stranded["sagas"])
    assert ["input", "label"] == [step["name"] for step in shown["steps"]]
    assert f"spoolproof review resolve {review} retry" == asking["error"]["hint"]
    assert ["refused", "not_found"] == [one["error"]["code"] for one in (asking, unknown)]
    assert ("resolved", "running", True) == (answered["state"], retried["state"], signalled)
    assert ["l-1", {"n": 1}] == result
    assert "completed" == cli("show", id)["saga"]["state"]
