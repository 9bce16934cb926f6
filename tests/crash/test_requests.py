"""The process that answers is killed on the way: there is an answer if and only if there are effects, and once."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from spoolproof import Service
from spoolproof.requests.events import AnsweredLate
from spoolproof.requests.part import RequestsPart
from spoolproof.settings import load_settings
from spoolproof.telemetry.events import Event, listening

NODE = Path(__file__).with_name("request_node.py")

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


def start(folder: Path, failpoints: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPOOLPROOF")}
    environment["SPOOLPROOF_STORE"] = f"sqlite:///{folder}/shop.db"
    environment["SPOOLPROOF_BROKER"] = f"embedded:///{folder}/b.db"
    if failpoints:
        environment["SPOOLPROOF_FAILPOINTS"] = failpoints
    return subprocess.Popen([sys.executable, NODE], cwd=folder, env=environment)


@pytest.mark.parametrize(
    "place", ["consumer.before_commit", "consumer.after_commit", "relay.after_confirm", "relay.before_delete"]
)
async def test_an_answer_comes_once_with_its_effects_wherever_the_answering_process_dies(
    tmp_path: Path, place: str
) -> None:
    settings = load_settings(store=f"sqlite:///{tmp_path}/till.db", broker=f"embedded:///{tmp_path}/b.db")
    till = Service("till", settings=settings)
    told: list[Event] = []
    dying = start(tmp_path, f"{place}=kill")
    living = None
    try:
        await till.start()
        async with asyncio.timeout(30):
            while till.broker.status.state != "connected" or await till.runtime.broker.depth("shop.price") is None:
                await asyncio.sleep(0.05)
        with listening(told.append):
            asking = asyncio.create_task(till.request({"article": "abc"}, type="shop.price.asked", timeout=60))
            assert -signal.SIGKILL == await asyncio.to_thread(dying.wait, 40)
            living = start(tmp_path, "")
            assert {"cents": 3} == await asking
            with sqlite3.connect(tmp_path / "shop.db") as shop:
                async with asyncio.timeout(20):
                    while shop.execute("select count(*) from spoolproof_outbox").fetchone() != (0,):
                        await asyncio.sleep(0.05)
                assert [("abc",)] == shop.execute("select article from effect").fetchall()
        assert {"answered": 1, "timeout": 0} == till.runtime.part(RequestsPart).outcomes
        assert not [one for one in told if isinstance(one, AnsweredLate)]
    finally:
        await till.stop()
        for process in (dying, living):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
