"""`spoolproof spool` as an operator types it: what is kept here, bringing it home, reading what is damaged."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoolproof import Service, Settings, event


@event("meter.read", may_be_unrouted=True)
class Read(msgspec.Struct):
    n: int
    text: str


class Folder:
    """A data directory and the command line in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = path / ".spoolproof" / "spool"

    def leave(self, count: int) -> Path:
        """Have a service publish into its spool, and end without a broker; returns the file it leaves."""

        async def publish() -> None:
            settings = Settings(store="none", broker="amqp://127.0.0.1:1/", data_dir=self.path / ".spoolproof")
            service = Service("meter", settings=settings)
            await service.start()
            await asyncio.gather(*(service.publish(Read(n, "y" * 300)) for n in range(count)))
            await service.stop()

        asyncio.run(publish())
        (file,) = self.spool.glob("meter/*.db")
        return file

    def cli(self, *words: str, exit_code: int = 0, **environment: str) -> dict[str, Any]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
        done = subprocess.run(
            [sys.executable, "-m", "spoolproof", "spool", *words, "--json"],
            cwd=self.path,
            env={**clean, "SPOOLPROOF_STORE": "none", **environment},
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert exit_code == done.returncode, done.stdout + done.stderr
        return dict(json.loads(done.stdout.splitlines()[0]))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_what_is_left_is_shown_and_brought_home(folder: Folder) -> None:
    """A machine is to be taken away: is there anything on it that is nowhere else?"""
    file = folder.leave(5)

    shown = folder.cli("status")
    refused = folder.cli("drain", "meter", "--seconds", "1", exit_code=4, SPOOLPROOF_BROKER="amqp://127.0.0.1:1/")
    drained = folder.cli("drain", "meter", SPOOLPROOF_BROKER="embedded:///broker.db")
    after = folder.cli("status")

    (one,) = shown["files"]
    assert (str(file.relative_to(folder.path)), "meter", False, 5) == (
        *(one["path"], one["service"], one["is_used"], one["rows"]),
    )
    assert {"found": 5, "left": 5} == {name: refused[name] for name in ("found", "left")}
    assert {"found": 5, "left": 0} == {name: drained[name] for name in ("found", "left")}
    assert [] == after["files"]


def test_a_damaged_file_is_read_by_hand(folder: Folder) -> None:
    """Somebody mends a disk and wants what can be had."""
    file = folder.leave(200)
    folder.cli("salvage", str(file), exit_code=4)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    file.write_bytes(content)

    found = folder.cli("salvage", str(file))
    shown = folder.cli("status")

    assert 100 < found["rows"] <= 200  # what is damaged may be an index
    assert [found["rows"]] == [one["rows"] for one in shown["files"]]
    assert [found["damaged"]] == [str(folder.path / one) for one in shown["damaged"]]
