"""A process that dies between telling somebody and writing that down tells it once more, and then never again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from spoolproof.testing.conformance import eventually

pytestmark = pytest.mark.crash


@pytest.mark.timeout(180)
async def test_killed_after_the_message_it_tells_once_more_and_no_restart_tells_again(tmp_path: Path) -> None:
    """Never not at all; and a crash is itself told of by who comes next."""
    async with receiver() as (port, told):
        async with node(tmp_path, port, "alert.after_send=kill") as first:
            assert -signal.SIGKILL == await asyncio.to_thread(first.wait, 60)
        assert ["DiskLow"] == told
        async with node(tmp_path, port) as second:
            await eventually(lambda: told.count("DiskLow") == 2 and "BackendCrashed" in told, seconds=60.0)
            await eventually(lambda: kept(tmp_path).count(b'"told":{"') == 2, seconds=60.0)
            second.kill()
            await asyncio.to_thread(second.wait)
        async with node(tmp_path, port) as third:
            await eventually(lambda: looks(tmp_path) > 20, seconds=60.0)
            await asyncio.to_thread(third.communicate, "")
            assert 0 == third.returncode

    assert 2 == told.count("DiskLow")
    assert 1 == told.count("BackendCrashed")  # it still fires for the crash before


def kept(folder: Path) -> bytes:
    path = folder / "alerts-crash.json"
    return path.read_bytes() if path.exists() else b""


def looks(folder: Path) -> int:
    """How often the process that lives has told its share, which it does before it judges."""
    with closing(sqlite3.connect(folder / "store.db")) as connection:
        ((most,),) = connection.execute(
            "select coalesce(max(version), 0) from spoolproof_state where kind = 'alert/crash' and name like 'share:%'"
            " and (select count(*) from spoolproof_state where name like 'share:%') = 1"
        )
    return int(most)


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[int, list[str]]]:
    """Names of the alerts that were told of, as they came."""
    told: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        title = json.loads(await reader.readexactly(length))["title"]
        told.append(title.partition(": ")[2].split()[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], told


@asynccontextmanager
async def node(folder: Path, port: int, failpoints: str = "") -> AsyncIterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    own = {
        "SPOOLPROOF_DATA_DIR": str(folder),
        "SPOOLPROOF_LEASE_SECONDS": "1",
        "SPOOLPROOF_ALERT_URLS_PAGE": f"json://127.0.0.1:{port}",
        "SPOOLPROOF_ALERT_DISK_LOW_BELOW": "1e18",
        "SPOOLPROOF_ALERT_DISK_LOW_FOR_SECONDS": "0",
        **({"SPOOLPROOF_FAILPOINTS": failpoints} if failpoints else {}),
    }
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("alert_node.py"))],
        stdin=subprocess.PIPE,
        text=True,
        env={**inherited, **own},
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        await asyncio.to_thread(process.wait)
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
