"""What is due moves from one table to the other: killed on the way, or with two at it, it is in one of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoolproof.clock import SystemClock
from spoolproof.ports.schedule import Schedule
from spoolproof.testing.conformance._messages import make_outgoing

sys.path.insert(0, str(Path(__file__).parent))
from harness import Node, NodeDied  # type: ignore[import-not-found]
from schedule_racer import opened  # type: ignore[import-not-found]

pytestmark = pytest.mark.crash
ON = ["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)]
ROWS = 200


@pytest.fixture
def url(on: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    found: str = f"sqlite:///{tmp_path / 'store.db'}" if on == "sqlite" else request.getfixturevalue("postgres_url")
    return found


@pytest.mark.parametrize("on", ON)
def test_killed_after_a_promotion_the_message_is_in_the_outbox_alone(url: str, tmp_path: Path) -> None:
    """Promoted once, and never again."""
    environment = {"SPOOLPROOF_STORE": url, "SPOOLPROOF_MIGRATE": "auto"}
    node = Node(tmp_path, environment, "schedule.after_promote=kill@1")
    try:
        node.read(30.0)
        assert {"accepted": 6} == node.ask(do="place", n=6)
        with pytest.raises(NodeDied):
            node.read()
    finally:
        node.close()

    async def look() -> tuple[int, int]:
        async with opened(url, "crash") as store:
            return await store.port(Schedule).count("crash"), (await store.outbox.backlog()).rows

    assert (0, 1) == asyncio.run(look())


@pytest.mark.parametrize("on", ON)
async def test_two_processes_that_promote_and_one_that_cancels_share_the_rows_out(url: str, tmp_path: Path) -> None:
    """The lease is for economy: when two believe that they lead, each message still goes once, or was cancelled."""
    async with opened(url, "shop") as store:
        at = SystemClock().now() - timedelta(minutes=1)
        rows = [msgspec.structs.replace(make_outgoing(key=f"k{n % 7}"), due=at) for n in range(ROWS)]
        await store.port(Schedule).add(rows, None)
        ids = tmp_path / "ids"
        ids.write_text("\n".join(row.message.id for row in reversed(rows)))

        async with racers(url, ["promote"], ["promote"], ["cancel", str(ids)]) as answers:
            first, second, cancelled = await answers()
        found = [row.outgoing.message.id for row in await _outbox(store)]

        assert 0 == await store.port(Schedule).count("shop")
        assert ROWS == len(set(found) | set(cancelled)) == len(found) + len(cancelled)
        assert len(found) == first[0] + second[0]


@pytest.mark.parametrize("on", ON)
def test_two_processes_run_a_function_once_for_each_time(url: str, tmp_path: Path) -> None:
    """Whichever leads; and when that one is killed the other one goes on, with one run for what was missed."""
    environment = {"SPOOLPROOF_STORE": url, "SPOOLPROOF_MIGRATE": "auto"}
    nodes = [Node(tmp_path, environment)]
    try:
        nodes[0].read(30.0)  # the first one makes the tables of the suite, which two at once trip over
        nodes.append(Node(tmp_path, environment))
        nodes[1].read(30.0)

        def ticks(least: int) -> list[str]:
            return next(
                found for found in iter(lambda: nodes[1].ask(do="report")["ticks"], None) if len(found) >= least
            )

        before = ticks(3)
        nodes[0].process.kill()
        after = ticks(len(before) + 3)
        letters = nodes[1].ask(do="report")["dead_letters"]
    finally:
        for node in nodes:
            node.close()

    seconds = [datetime.fromisoformat(one.partition("@")[2]).timestamp() for one in after]
    assert [1.0, 1.0] == [round(b - a, 3) for a, b in pairwise(seconds[:3])]
    assert all(gap == int(gap) for gap in [round(b - a, 3) for a, b in pairwise(seconds)])
    assert [] == letters


async def _outbox(store: Any) -> Any:
    return (await store.outbox.fetch(dict.fromkeys(store.services.own.shards, 0), (), 1000)).rows


@asynccontextmanager
async def racers(url: str, *commands: list[str]) -> Any:
    """Start the processes, let them go together when all are ready, and read what each says."""
    script = str(Path(__file__).with_name("schedule_racer.py"))
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, script, url, *command),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for command in commands
    ]

    async def answers() -> list[Any]:
        for one in running:
            assert one.stdout is not None
            assert b"ready\n" == await one.stdout.readline()
        said = await asyncio.gather(*(one.communicate(b"go\n") for one in running))
        return [msgspec.json.decode(out) for out, _ in said]

    try:
        yield answers
    finally:
        for one in running:
            if one.returncode is None:
                one.kill()
            await one.wait()
