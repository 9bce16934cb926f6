"""`spoolproof webhook`, from an endpoint's first day to its last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_an_endpoint_is_made_changed_and_removed(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its secret is shown by the command that made it, and by no other."""
    run("migrate")
    url = "https://localhost/hook"

    refused = run("webhook", "add", "shop", url, "--type", "shop.order", exit_code=2)
    monkeypatch.setenv("SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE", "127.0.0.0/8,::1/128")
    added = run("webhook", "add", "shop", url, "--type", "shop.order")
    twice = run("webhook", "add", "shop", url, "--type", "shop.order", exit_code=4)
    rotated = run("webhook", "rotate", "shop")
    run("webhook", "pause", "shop", "--reason", "they migrate")
    shown = run("webhooks", "list")
    text = run("webhook", "ls", as_json=False)
    ended = run("webhook", "rotate", "shop", "--end")
    monkeypatch.delenv("SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE")
    unanswered = run("webhook", "test", "shop", exit_code=4)
    run("webhook", "resume", "shop")
    removed = run("webhook", "rm", "shop")
    missing = run("webhook", "rm", "shop", exit_code=1)

    assert "SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE" in refused["error"]["message"]
    assert "refused" == twice["error"]["code"]
    assert added["secret"].startswith("whsec_")
    assert rotated["secret"] not in ("", None, added["secret"])
    (one,) = shown["endpoints"]
    assert ("shop", "paused", url, ["shop.order"], "they migrate", 0) == tuple(
        one[name] for name in ("name", "state", "url", "types", "note", "waiting")
    )
    assert ["whsec_…", "whsec_…"] == one["secrets"]
    assert "they migrate" in text
    assert added["secret"] not in text + json.dumps(shown)
    assert ended["secret"] is None
    assert "SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE" in unanswered["error"]["message"], "also what was added before"
    assert "shop" == removed["removed"]
    assert ("not_found", "spoolproof webhook ls") == (missing["error"]["code"], missing["error"]["hint"])
