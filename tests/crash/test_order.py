"""Order of each key, with real processes that are killed and frozen: exact, nothing lost, nothing twice."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NODE = Path(__file__).with_name("order_node.py")
KEYS = 12
STEPS = 12 * KEYS

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


class Node:
    """One life of a process."""

    def __init__(self, folder: Path, environment: dict[str, str], failpoints: str = "") -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
        self._log = (folder / "node.log").open("ab")
        own = {"SPOOLPROOF_DATA_DIR": str(folder), "SPOOLPROOF_LEASE_SECONDS": "1"}
        if failpoints:
            own["SPOOLPROOF_FAILPOINTS"] = failpoints
        self.process = subprocess.Popen(
            [sys.executable, str(NODE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**kept, **own, **environment},
            cwd=folder,
            text=True,
        )
        try:
            self.answer()
        except BaseException:
            self.end()
            raise

    def ask(self, command: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, Path(self._log.name).read_text()[-3000:]
        return json.loads(line)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self._log.close()


class Cluster:
    """Processes of one service on the same store and broker."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self.nodes: list[Node] = []

    def start(self, failpoints: str = "", roles: str = "relay,consumer,maintenance") -> Node:
        self.nodes.append(Node(self.folder, {**self._environment, "NODE_ROLES": roles}, failpoints))
        return self.nodes[-1]

    def kill(self, node: Node) -> None:
        self.nodes.remove(node)
        node.end()

    def freeze(self, node: Node) -> Node:
        """Stop a process at a moment when it does not hold a file's write lock, which would stop everybody."""

        def is_frozen_outside() -> bool:
            node.process.send_signal(signal.SIGSTOP)
            if all(map(_is_free, self.folder.glob("*.writer"))):
                return True
            node.process.send_signal(signal.SIGCONT)
            return False

        self.until(is_frozen_outside)
        self.nodes.remove(node)
        return node

    def effects(self, queue: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for of, key, n in self.nodes[-1].ask("effects"):
            if of == queue:
                found[key].append(n)
        return found

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "node.log").read_text()[-3000:]
            time.sleep(0.05)


def _is_free(lock: Path) -> bool:
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def expected(steps: int) -> dict[str, list[int]]:
    return {f"key-{key}": list(range(key, steps, KEYS)) for key in range(KEYS)}


def total(effects: dict[str, list[int]]) -> int:
    return sum(map(len, effects.values()))


def through_kills(folder: Path, environment: dict[str, str]) -> None:
    """Publish while handlers fail, and end whichever process is the active one, by SIGKILL and by SIGSTOP."""
    cluster = Cluster(folder, environment)
    frozen: list[Node] = []
    try:
        cluster.start()
        publisher = cluster.start()
        publisher.ask(f"step 0 {STEPS}")
        for part in (1, 2, 3, 4):
            cluster.until(lambda part=part: total(cluster.effects("skip")) >= part * STEPS / 6)  # type: ignore[misc]
            victim = cluster.nodes[0]
            if part == 2:
                frozen.append(cluster.freeze(victim))
            else:
                cluster.kill(victim)
            cluster.start()
            if part == 3:
                frozen[0].process.send_signal(signal.SIGCONT)  # it goes on with what others have by now
                cluster.nodes.insert(0, frozen.pop())
        cluster.until(lambda: total(cluster.effects("skip")) >= STEPS)

        assert expected(STEPS) == cluster.effects("skip")
        assert {"open": 0} == {name: n for name, n in cluster.nodes[-1].ask("letters").items() if name == "open"}
    finally:
        cluster.nodes += frozen
        for node in list(cluster.nodes):
            cluster.kill(node)


def test_kills_and_a_freeze_on_sqlite_and_the_embedded_broker(folder: Path) -> None:
    """S6."""
    through_kills(folder, {})


@pytest.mark.servers
def test_kills_and_a_freeze_on_rabbitmq(folder: Path, rabbitmq_url: str) -> None:
    """S6."""
    through_kills(folder, {"SPOOLPROOF_BROKER": f"{rabbitmq_url}?heartbeat=4"})


HELD_STEPS = 4 * KEYS
POINTS = ("held.after_hold", "held.before_begin", "held.after_begin", "held.before_run", "held.after_run")
MIDDLE = ("consumer.before_commit", "consumer.after_commit", "dead_letter.after_resolve")


def held_keys(folder: Path, environment: dict[str, str], failpoints: str) -> None:
    """Step 1 of each key fails; its later steps wait, and run after its replay, though a process dies in between."""
    cluster = Cluster(folder, environment)
    is_early = failpoints.startswith(POINTS[:3])
    try:
        publisher = cluster.start(roles="maintenance")
        publisher.ask(f"held 0 {HELD_STEPS}")
        cluster.kill(publisher)
        node = cluster.start(failpoints if is_early else "")
        if is_early:
            assert -signal.SIGKILL == node.process.wait(30)
            cluster.kill(node)
            node = cluster.start()
        done = {"open": KEYS, "held": HELD_STEPS - 2 * KEYS}
        cluster.until(lambda: done.items() <= cluster.nodes[-1].ask("letters").items())
        assert {key: steps[:1] for key, steps in expected(HELD_STEPS).items()} == cluster.effects("hold")

        (folder / "mended").touch()
        if not is_early:
            cluster.kill(node)
            node = cluster.start(failpoints)
        node.ask("replay")
        if not is_early:
            assert -signal.SIGKILL == node.process.wait(30)
            cluster.kill(node)
            cluster.start()
        cluster.until(lambda: total(cluster.effects("hold")) >= HELD_STEPS)

        assert expected(HELD_STEPS) == cluster.effects("hold")
        cluster.until(lambda: cluster.nodes[-1].ask("letters").get("held") == 0)
    finally:
        for node in list(cluster.nodes):
            cluster.kill(node)


@pytest.mark.parametrize("name", [*POINTS, *MIDDLE])
def test_held_keys_on_sqlite(folder: Path, name: str) -> None:
    """S6, S10."""
    held_keys(folder, {}, f"{name}=kill@{5 if name in POINTS[3:] else KEYS + 5 if name in MIDDLE else 2}")


@pytest.mark.servers
@pytest.mark.parametrize("name", ["held.before_run", "consumer.before_commit"])
def test_held_keys_on_postgresql(folder: Path, postgres_url: str, name: str) -> None:
    """S6, S10."""
    held_keys(folder, {"SPOOLPROOF_STORE": postgres_url, "SPOOLPROOF_MIGRATE": "auto"}, f"{name}=kill@{KEYS + 5}")
