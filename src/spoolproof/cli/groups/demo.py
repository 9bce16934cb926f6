"""`spoolproof demo`: the example shop under fire, in a process of its own.

Nothing that runs in production imports testing, so this only starts it and passes on what the child says.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType
from typing import Annotated

import typer

from spoolproof.cli.exits import FAILED
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson


def demo(
    servers: Annotated[bool, typer.Option("--servers", help="On PostgreSQL and RabbitMQ, started privately.")] = False,
    orders: Annotated[int, typer.Option("--orders", min=1, help="How many orders to place.")] = 600,
    seed: Annotated[int | None, typer.Option("--seed", help="Repeat the run that printed it.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the files and logs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Place orders in a small shop while its processes are killed, and count what was lost."""
    arguments = ["--orders", str(orders)]
    arguments += ["--servers"] if servers else []
    arguments += ["--seed", str(seed)] if seed is not None else []
    arguments += ["--keep"] if keep else []
    arguments += ["--json"] if as_json else []
    code = run_child([sys.executable, "-m", "spoolproof.testing.demo", *arguments])
    if code:
        raise typer.Exit(code)


def run_child(command: list[str]) -> int:
    """Run a process to its end, handing on SIGTERM; Ctrl-C reaches it by itself. Returns its code, 1 if killed."""
    child = subprocess.Popen(command)

    def hand_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        while True:
            try:
                code = child.wait()
                return FAILED if code < 0 else code
            except KeyboardInterrupt:
                continue  # the child got it too, and tidies up
    finally:
        signal.signal(signal.SIGTERM, before)


GROUP = Group("demo", {"": demo}, place=4)
