"""A process that dies between the answer to a webhook and the end of its row sends it again, under the same id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spoolproof.testing.conformance import eventually

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))
from receivers import Receiver  # type: ignore[import-not-found]

pytestmark = pytest.mark.crash

EVENTS = 6


@pytest.mark.timeout(60)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_killed_after_the_send_it_sends_again_under_the_same_id(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The receiver's own record of ids makes it one effect; nothing is lost, nothing invented."""
    url = {"SPOOLPROOF_STORE": request.getfixturevalue("postgres_url")} if store == "postgres" else {}
    with Receiver(tmp_path) as receiver:
        with node(tmp_path, receiver.port, {**url, "SPOOLPROOF_FAILPOINTS": "webhook.after_send=kill@3"}) as first:
            assert -signal.SIGKILL == first.wait(20)
        before = receiver.numbers()
        assert sum(before.values()) >= 3, "it died after the third answer"

        with node(tmp_path, receiver.port, url) as second:
            await eventually(lambda: len(receiver.numbers()) == EVENTS and _again(receiver), seconds=20.0)
            again = _again(receiver)
            second.communicate("")

        assert 0 == second.returncode
        assert again & before.keys(), "what was answered before the crash came again"
        assert {(n, f"order-{n}") for n in range(EVENTS)} == {
            (line["body"]["data"]["n"], line["id"]) for line in receiver.received()
        }


def _again(receiver: Receiver) -> set[int]:
    return {n for n, count in receiver.numbers().items() if count > 1}


@contextmanager
def node(folder: Path, port: int, settings: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    own = {
        "SPOOLPROOF_DATA_DIR": str(folder),
        "SPOOLPROOF_LEASE_SECONDS": "1",
        "SPOOLPROOF_MIGRATE": "auto",
        "SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8,::1/128",
        "SPOOLPROOF_WEBHOOK_PORTS": str(port),
    }
    command = [sys.executable, str(Path(__file__).with_name("webhook_node.py")), str(port), str(EVENTS)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**inherited, **own, **settings},
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
