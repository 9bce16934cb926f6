"""`spoolproof degradation`: setting a level, seeing it, taking it back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoolproof import Service, Settings
from spoolproof.cli.app import invoke


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in an empty directory; returns its document, or its text with as_json=False."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOOLPROOF_STORE", f"sqlite:///{tmp_path / 'store.db'}")

    def command(*arguments: str, exit_code: int = 0, as_json: bool = True) -> Any:
        assert exit_code == invoke([*arguments, *(("--json",) if as_json else ())])
        text = capsys.readouterr().out
        return json.loads(text) if as_json else text

    return command


async def _start_once(folder: Path) -> None:
    service = Service("shop", settings=Settings(store=f"sqlite:///{folder / 'store.db'}", broker="memory://"))
    await service.start(only=())
    await service.stop()


def test_a_level_is_set_shown_and_cleared(run: Callable[..., Any], tmp_path: Path) -> None:
    run("migrate")
    unknown = run("degradation", "set", "shopp", "1", "--reason", "sale", exit_code=1)
    asyncio.run(_start_once(tmp_path))

    assert "no service 'shopp' has run on this store; there are none" in unknown["error"]["message"]
    assert "nothing is set" in run("degradation", "show", "shop", as_json=False)
    wrong = run("degradation", "set", "shop", "5", "--reason", "sale", exit_code=2)
    made = run("degradation", "set", "shop", "1", "--reason", "sale", "--seconds", "60", "--actor", "ann")
    shown = run("degradation", "show", "shop")
    text = run("degradation", "show", "shop", as_json=False)
    cleared = run("degradation", "clear", "shop")
    again = run("degradation", "clear", "shop", as_json=False)

    assert "level=5: 0 (normal) to 3 (emergency)" in wrong["error"]["message"]
    assert (1, "reduced", "sale", "ann") == tuple(made[name] for name in ("level", "name", "reason", "actor"))
    assert (1, [], "ann") == (shown["level"], shown["processes"], shown["set"]["actor"])
    assert "level 1 (reduced) is set by ann until" in text
    assert cleared["was_set"]
    assert "nothing was set for shop" in again
