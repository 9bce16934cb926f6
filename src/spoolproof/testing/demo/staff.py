"""The people of the shop, who decide what software must not. They know nothing but the command line.

They approve large orders, reject what products says is not there, and have tried again whatever else a saga asks. Each
command is a process beside the run; one that fails, since the database is away or the question is settled, is no harm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from spoolproof.testing.demo.processes import dies_with

STAFF = "staff"
LOOK_SECONDS = 4.0


class Staff:
    """Call `tick` often. sold_out: the orders of which products has said that there are none."""

    def __init__(self, folder: Path, environment: Mapping[str, str], sold_out: Callable[[], set[str]]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._sold_out = sold_out
        self._process: subprocess.Popen[bytes] | None = None
        self._is_looking = False
        self._look_at = 0.0
        self._todo: list[tuple[str, str, str]] = []

    def tick(self) -> None:
        """Begin the next command, or take in what one has said."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            process, self._process = self._process, None
            assert process.stdout is not None
            with process.stdout:
                said = process.stdout.read()
            if self._is_looking and process.returncode == 0:
                self._todo = [found for item in msgspec.json.decode(said)["items"] if (found := self._decided(item))]
        elif self._todo:
            id, action, reason = self._todo.pop(0)
            self._begin("resolve", id, action, "--actor", STAFF, "--reason", reason)
        elif time.monotonic() >= self._look_at:
            self._begin("ls")
            self._look_at = time.monotonic() + LOOK_SECONDS

    def end(self) -> None:
        """Kill what runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _decided(self, item: Mapping[str, Any]) -> tuple[str, str, str] | None:
        _, _, question = item["subject"].partition("/")
        if question.startswith("large_order/"):
            return item["id"], "approve", "a good customer"
        if question.startswith("availability/"):
            is_sold_out = question.partition("/")[2] in self._sold_out()
            return (item["id"], "reject", "none are left") if is_sold_out else None
        return (item["id"], "retry", "try again") if "retry" in item["actions"] else None

    def _begin(self, verb: str, *arguments: str) -> None:
        self._is_looking = verb == "ls"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spoolproof", "review", verb, *arguments, "--json"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dies_with(os.getpid()),
        )
