"""`spoolproof batch` as people type it, with no service running."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

SHOP = """
import asyncio

from spoolproof import Service

service = Service("shop")


@service.batches.job("mail", validate=lambda item: [] if "to" in item else ["has no recipient"])
async def mail(item: dict) -> None: ...


async def main():
    await service.start(only=[])
    await service.batches.submit("mail", [{"to": "ann"}, {}, {"to": "bob"}])
    await service.stop()


asyncio.run(main())
"""


def test_a_batch_is_looked_at_cancelled_and_sent_again(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    _run(tmp_path, "shop.py")

    (batch,) = _cli(tmp_path, "batch", "ls", "--state", "running")["batches"]
    id = batch["id"]
    assert ("mail", 3, 1, 2) == tuple(batch[name] for name in ("job", "total", "invalid", "pending"))
    page = _cli(tmp_path, "batch", "show", id, "--limit", "2")["batch"]
    assert ([0, 1], 1) == ([item["n"] for item in page["items"]], page["next"])
    assert "has no recipient" in _run(tmp_path, "-m", "spoolproof", "batch", "show", id, "--only", "invalid")

    why = ("--reason", "wrong text", "--actor", "ann")
    _cli(tmp_path, "batch", "cancel", id, *why)
    error = _cli(tmp_path, "batch", "cancel", id, *why, exit_code=4)["error"]
    assert f"batch {id} is cancelled" in error["message"]
    assert 2 == _cli(tmp_path, "batch", "replay", id, *why)["items"]
    assert "spoolproof batch ls" == _cli(tmp_path, "batch", "show", "no-such", exit_code=1)["error"]["hint"]
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        types = [type for (type,) in connection.execute("select type from spoolproof_outbox order by id")]
    assert [*["shop.job.mail"] * 2, "spoolproof.batch_finished", *["shop.job.mail"] * 2] == types


def _run(folder: Path, *words: str, exit_code: int = 0) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**clean, "SPOOLPROOF_STORE": "sqlite:///store.db"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert exit_code == done.returncode, done.stdout + done.stderr
    return done.stdout


def _cli(folder: Path, *words: str, exit_code: int = 0) -> dict[str, Any]:
    return dict(json.loads(_run(folder, "-m", "spoolproof", *words, "--json", exit_code=exit_code).splitlines()[0]))
