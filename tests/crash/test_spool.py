"""What a killed process had in its spool comes back: acknowledged is delivered, per key in order (L30)."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from spoolproof.testing.servers import PostgresServer, RabbitMQServer

NODE = Path(__file__).with_name("spool_node.py")


@pytest.fixture
def make() -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(*arguments: Any, **environment: str) -> Node:
        nodes.append(Node(*arguments, **environment))
        return nodes[-1]

    yield make
    for node in nodes:
        node.kill()


class Node:
    """One running node and the numbers it was heard to accept."""

    def __init__(self, folder: Path, *arguments: int, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
        stderr = (folder / "node.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(NODE), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=clean
            | {
                "SPOOLPROOF_DATA_DIR": str(folder),
                "SPOOLPROOF_SPOOL": str(folder / "spool"),
                "SPOOLPROOF_SPOOL_FREE_BYTES_MIN": "16777216",
            }
            | environment,
            cwd=folder,
            text=True,
        )
        stderr.close()
        self.accepted: list[int] = []
        self.places: list[str] = []
        self.refused: list[str] = []

    def hear(self, enough: int | None = None, seconds: float = 30.0) -> str:
        """Listen until so many were accepted, or until the node says something else or ends."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (line := self.process.stdout.readline()):
            word, _, rest = line.strip().partition(" ")
            if word == "refused":
                self.refused.append(rest)
            elif word in ("stored", "spooled"):
                self.places.append(word)
                self.accepted.append(int(rest))
                if enough is not None and len(self.accepted) >= enough:
                    return ""
            else:
                return word
        return ""

    def kill(self) -> None:
        self.process.kill()
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.hear()
            self.process.stdout.close()
        self.process.wait()


def delivered(folder: Path) -> list[tuple[str, int]]:
    """What handlers got, first copies only, in that order."""
    lines = (folder / "delivered").read_text().splitlines() if (folder / "delivered").exists() else []
    return list(dict.fromkeys((line.split()[0], int(line.split()[1])) for line in lines))


def assert_all_came(folder: Path, *of_processes: list[int], seconds: float = 20.0) -> None:
    """Acknowledged = delivered, and what one process published of a key in its order."""
    accepted = [n for one in of_processes for n in one]
    deadline = time.monotonic() + seconds
    while set(accepted) - {n for _, n in delivered(folder)} and time.monotonic() < deadline:
        time.sleep(0.05)
    found = delivered(folder)
    assert [] == sorted(set(accepted) - {n for _, n in found}), "lost"
    for key, one in itertools.product(("k1", "k2"), of_processes):
        numbers = [n for found_key, n in found if found_key == key and n in one]
        assert sorted(numbers) == numbers, key


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


@pytest.mark.crash
@pytest.mark.timeout(90)
@pytest.mark.parametrize("failpoint", ["spool.after_commit=kill@40", "spool.after_move=kill@1"])
def test_killed_in_the_spool(failpoint: str, tmp_path: Path, make: Callable[..., Node]) -> None:
    """Kept and nobody was told; in the store and still in the spool: both come back as copies under the same id."""
    first = make(tmp_path, 1, SPOOLPROOF_FAILPOINTS=failpoint)
    assert "started" == first.hear()
    first.hear(6)
    with locked(tmp_path / "store.db"):
        first.hear(36)
        if "commit" in failpoint:
            assert "" == first.hear()
    first.hear()
    assert -signal.SIGKILL == first.process.wait(20), "the failpoint was not reached"

    second = make(tmp_path, max(first.accepted) + 1, max(first.accepted) + 6)
    assert "started" == second.hear()
    assert "empty" == second.hear()

    assert "spooled" in first.places
    assert_all_came(tmp_path, first.accepted, second.accepted)
    assert [] == list((tmp_path / "spool" / "shop").iterdir())


@pytest.mark.crash
@pytest.mark.servers
@pytest.mark.timeout(180)
def test_store_and_broker_stopped_and_the_process_killed(
    tmp_path: Path,
    make: Callable[..., Node],
    postgres: PostgresServer,
    rabbitmq: RabbitMQServer,
    postgres_url: str,
    rabbitmq_url: str,
) -> None:
    """Everything is away at once, and the process dies under load; the next one starts without any of it. Once the
    servers are back, all that was acknowledged is delivered."""
    servers = {
        "SPOOLPROOF_STORE": postgres_url,
        "SPOOLPROOF_BROKER": rabbitmq_url,
        "SPOOLPROOF_MIGRATE": "auto",
        "NODE_PATIENCE": "2",
    }
    first = make(tmp_path, 1, **servers)
    assert "started" == first.hear()
    first.hear(60)
    rabbitmq.sync()
    rabbitmq.stop()
    first.hear(120)
    postgres.stop()
    first.hear(600, seconds=60)
    first.kill()
    second = make(tmp_path, max(first.accepted) + 1, max(first.accepted) + 100, **servers)
    assert "started" == second.hear()
    second.hear(100)
    postgres.start()
    rabbitmq.start()

    assert "empty" == second.hear(seconds=90)
    assert "spooled" in first.places
    assert {"spooled"} == set(second.places)
    assert_all_came(tmp_path, first.accepted, second.accepted, seconds=60)
