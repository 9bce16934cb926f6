"""Drives a node through one scenario, kills it where the plan says, and adds up what is left.

The parent is the ledger: an order counts as accepted only when the node's answer was read. Orders without an answer
are placed again under the same id, as a real client would.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from node import message_id  # type: ignore[import-not-found]

PATIENCE_SECONDS = 40.0
ANSWER_SECONDS = 15.0
ORDERS = tuple(range(1, 19))  #: with 3, 10, 17 failing twice and 5, 16 poisoned until repaired


class NodeDied(Exception):
    """The node ended before it answered."""


class Node:
    """One running process, spoken to line by line."""

    def __init__(self, folder: Path, environment: dict[str, str], failpoints: str = "") -> None:
        self.log = folder / "failpoints.log"
        self.stderr_path = folder / "node.log"
        self._stderr = self.stderr_path.open("ab")
        self._buffer = b""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))},
            "SPOOLPROOF_DATA_DIR": str(folder),
            "SPOOLPROOF_LEASE_SECONDS": "1",
            "NODE_REPAIRED": str(folder / "repaired"),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        if failpoints:
            environment |= {"SPOOLPROOF_FAILPOINTS": failpoints, "SPOOLPROOF_FAILPOINT_LOG": str(self.log)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("node.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            cwd=folder,
        )

    def read(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Return the next answer. Raises NodeDied, or TimeoutError with the end of the node's log."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no answer in {seconds} s\n{self.tail()}")
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                self.process.wait()
                raise NodeDied(self.process.returncode)
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))

    def ask(self, seconds: float = ANSWER_SECONDS, **command: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            self.process.wait()
            raise NodeDied(self.process.returncode) from error
        return self.read(seconds)

    def terminate(self, seconds: float = ANSWER_SECONDS) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        """Kill it if it lives and let go of its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was not flushed had nobody left to read it
                    pipe.close()
        self._stderr.close()

    def tail(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.stderr_path.read_text(errors="replace").splitlines()[-40:])

    def fired(self) -> list[str]:
        """Return the failpoints that acted."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split(" ")[2] for line in lines if line.split(" ")[1] in ("kill", "freeze", "raise")]


class Scenario:
    """Orders placed, retried, dead-lettered, replayed, and a drain; once through, whatever dies on the way."""

    def __init__(self, folder: Path, environment: dict[str, str], failpoints: str) -> None:
        self._folder = folder
        self._environment = environment
        self._failpoints = failpoints
        self.accepted: set[int] = set()
        self.accepted_nowhere: set[int] = set()
        self.accepted_dead: set[int] = set()
        self.deaths: list[int] = []
        self.node: Node | None = None
        self.exit_code: int | None = None

    def run(self) -> dict[str, Any]:
        """Go through the scenario; returns the final report of a node nothing was aimed at."""
        try:
            self._through(self._failpoints)
            return self._through("")
        finally:
            if self.node is not None:
                self.node.close()

    def _through(self, failpoints: str) -> dict[str, Any]:
        try:
            return self._steps(failpoints)
        except NodeDied as death:
            self.deaths.append(death.args[0])
            if not failpoints:
                raise AssertionError(f"a node nothing was aimed at died\n{self.node and self.node.tail()}") from death
            return {}

    def _steps(self, failpoints: str) -> dict[str, Any]:
        if self.node is not None:
            self.node.close()
        self.node = Node(self._folder, self._environment, failpoints)
        self.node.read(30.0)
        self.place_all()
        self.until_settled()
        (self._folder / "repaired").touch()
        self.node.ask(do="replay")
        report = self.until_repaired()
        self.exit_code = self.node.terminate()
        if self.exit_code != 0:
            raise NodeDied(self.exit_code)
        return report

    def place_all(self) -> None:
        """Place everything that has not been accepted yet."""
        for n in ORDERS:
            self.place("place", n, self.accepted)
        self.place("nowhere", 1, self.accepted_nowhere)
        self.place("dead", 1001, self.accepted_dead)

    def place(self, verb: str, n: int, ledger: set[int], seconds: float = ANSWER_SECONDS) -> None:
        """Place one order unless it was accepted; it is in the ledger once the answer was read."""
        assert self.node is not None
        if n not in ledger:
            answer = self.node.ask(seconds, do=verb, n=n)
            assert answer == {"accepted": n}, answer
            ledger.add(n)

    def until_settled(self, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until every order is booked or dead-lettered."""
        return self._until(self._is_settled, "every order to be booked or dead-lettered", seconds)

    def until_repaired(self, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until the replayed orders are booked too."""
        return self._until(self._is_repaired, "the replayed orders to be booked", seconds)

    def _until(self, condition: Any, what: str, seconds: float) -> dict[str, Any]:
        assert self.node is not None
        deadline = time.monotonic() + seconds
        report = self.node.ask(do="report")
        while not condition(report):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {what}: {report}\n{self.node.tail()}")
            time.sleep(0.05)
            report = self.node.ask(do="report")
        return report

    def _is_settled(self, report: dict[str, Any]) -> bool:
        booked = {n for queue, n in report["effects"] if queue == "book"}
        dead = {id for id, *_ in report["dead_letters"]}
        waiting = [n for n in self.accepted if n not in booked and message_id("order", n) not in dead]
        others = {message_id("nowhere", n) for n in self.accepted_nowhere} | {
            message_id("dead", n) for n in self.accepted_dead
        }
        return not waiting and others <= dead and self._are_all_confirmed(report)

    def _is_repaired(self, report: dict[str, Any]) -> bool:
        booked = {n for queue, n in report["effects"] if queue == "book"}
        return self.accepted <= booked and self._are_all_confirmed(report)

    def _are_all_confirmed(self, report: dict[str, Any]) -> bool:
        effects = Counter(queue for queue, _ in report["effects"])
        return report["outbox"] == 0 and effects["book"] == effects["confirm"]


def verdict(scenario: Scenario, report: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what was lost, doubled and invented, and dead letters in the wrong state; all empty when all is well."""
    booked = Counter(n for queue, n in report["effects"] if queue == "book")
    confirmed = Counter(n for queue, n in report["effects"] if queue == "confirm")
    letters = {id: (consumer, reason, state) for id, consumer, reason, state, _ in report["dead_letters"]}
    expected = {message_id("nowhere", n) for n in scenario.accepted_nowhere}
    expected |= {message_id("dead", n) for n in scenario.accepted_dead}
    return {
        "lost": [n for n in scenario.accepted if not booked[n] or not confirmed[n]],
        "lost_letters": sorted(expected - set(letters)),
        "doubled": [n for n, count in (booked + Counter()).items() if count > 1]
        + [n for n, count in confirmed.items() if count > 1],
        "invented": [n for n in booked if n not in report["placed"]],
        "left_open": [
            id for id, (_, reason, state) in letters.items() if reason == "handler" and state not in ("resolved",)
        ],
        "twice": [id for id, count in Counter(id for id, *_ in report["dead_letters"]).items() if count > 1],
    }


CLEAN: dict[str, list[Any]] = {
    name: [] for name in ("lost", "lost_letters", "doubled", "invented", "left_open", "twice")
}
