"""`python -m spoolproof.testing.demo` as a process: its accounts, its end, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from spoolproof.testing.servers import PostgresServer, RabbitMQServer

pytestmark = pytest.mark.acceptance

DEMO = [sys.executable, "-m", "spoolproof.testing.demo"]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), **more}


def demo(tmp_path: Path, *options: str, timeout: float) -> dict[str, Any]:
    """Run the demo and return its JSON document and exit code."""
    done = subprocess.run(
        [*DEMO, "--json", *options], env=environment(tmp_path), capture_output=True, text=True, timeout=timeout
    )
    assert done.stdout, done.stderr
    return {"exit_code": done.returncode, "stderr": done.stderr, **json.loads(done.stdout)}


NOTHING = ("lost", "charged_twice", "delivered_twice", "half_done", "unfinished", "invented")


def check(document: dict[str, Any], orders: int) -> None:
    accounts = document["accounts"]
    assert [] == document["problems"], document["stderr"]
    assert 0 == document["exit_code"]
    assert document["passed"]
    assert orders == accounts["accepted"] + accounts["declined"] == accounts["completed"] + accounts["compensated"]
    assert accounts["dead_lettered"] == accounts["replayed"]
    assert (0, 0) == (accounts["in_review"], accounts["reviews_open"])
    assert [[]] * len(NOTHING) == [accounts[name] for name in NOTHING]


@pytest.mark.timeout(200)
def test_the_demo_breaks_all_services_and_loses_nothing(tmp_path: Path) -> None:
    """What the README shows first. 200 orders meet every kind of fault once; `spoolproof demo` does it twice."""
    document = demo(tmp_path, "--orders", "200", "--seed", "20", timeout=190)

    check(document, 200)
    names = ("sales", "payments", "products", "delivery")
    assert {f"{verb} {name}" for verb in ("kill -9", "freeze") for name in names} == {
        fault["kind"] for fault in document["faults"]
    }
    assert all(fault["detected_seconds"] is not None for fault in document["faults"])
    assert document["accounts"]["dead_lettered"] > 0
    assert document["accounts"]["reviews_by_staff"] > 0
    assert [] == list(tmp_path.iterdir())


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    bool(PostgresServer.missing() or RabbitMQServer.missing()) and os.environ.get("CI") != "true",
    reason=f"{PostgresServer.missing()}; {RabbitMQServer.missing()}",
)
def test_the_demo_breaks_the_servers_too_and_loses_nothing() -> None:
    """The same code on PostgreSQL and RabbitMQ, which are stopped, frozen and killed, also both at once."""
    with tempfile.TemporaryDirectory(prefix="servers-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as somebody else
        document = demo(Path(folder), "--servers", "--orders", "400", timeout=390)

    check(document, 400)
    kinds = {fault["kind"] for fault in document["faults"]}
    assert {f"{verb} {name}" for verb in ("stop", "freeze", "kill -9") for name in ("rabbitmq", "postgresql")} < kinds
    assert {"kill -9 both servers", "freeze both servers"} < kinds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_demo_stops_everything_it_started(tmp_path: Path, number: signal.Signals) -> None:
    """Nobody wants a shop running on after Ctrl-C, or its folder."""
    process, children = started(tmp_path)

    process.send_signal(number)
    output, _ = process.communicate(timeout=90)

    assert 130 == process.returncode, output
    assert [] == [child for child in children if lives(child)]
    assert [] == list(tmp_path.iterdir())


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    """The kernel ends what the orchestrator cannot end any more."""
    process, children = started(tmp_path)

    process.kill()
    process.communicate(timeout=30)

    deadline = time.monotonic() + 10
    while any(lives(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [] == [child for child in children if lives(child)]


def test_too_few_orders_are_refused_with_a_reason(tmp_path: Path) -> None:
    """A fault that meets no traffic proves nothing."""
    done = subprocess.run([*DEMO, "--orders", "1"], env=environment(tmp_path), capture_output=True, text=True)

    assert 2 == done.returncode
    assert "--orders 1: at least 20" in done.stderr


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """`pip install spoolproof` alone brings no FastAPI; the demo says so instead of a traceback."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'fastapi' else found(name, *rest)\n"
    )

    done = subprocess.run(
        DEMO, env=environment(tmp_path, PYTHONPATH=str(tmp_path)), capture_output=True, text=True, timeout=30
    )

    assert 3 == done.returncode, done.stderr
    assert "fastapi not installed; run: pip install 'spoolproof[demo]'" in done.stdout


def started(tmp_path: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start a demo and return it with its children once customers are placing orders."""
    process = subprocess.Popen(
        DEMO,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a run in the background ignores it
    )
    deadline = time.monotonic() + 40
    while not list(tmp_path.glob("spoolproof-demo-*/ledger.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    assert 5 <= len(children)  # sales, payments, products, delivery, customers
    return process, children


def lives(child: psutil.Process) -> bool:
    try:
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
