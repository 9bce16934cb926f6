"""The command line as its users meet it: real processes, real signals, exit codes and documents."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

T = TypeVar("T")
PATIENCE_SECONDS = 40.0  #: this machine may be busy with other tests
SECRET = "hunter2-planted"

SHOP = """
import asyncio, pathlib
import msgspec
from spoolproof import Service, Transaction, event

service = Service("shop")
HERE = pathlib.Path(__file__).parent


@event("shop.order")
class Order(msgspec.Struct):
    n: int


@service.on(Order, attempts=1, concurrency=1, timeout=60)
async def take(order: Order, tx: Transaction) -> None:
    (HERE / f"running-{order.n}").touch()
    while order.n == 0 and not (HERE / "go").exists():
        await asyncio.sleep(0.02)
    if order.n < 0 and not (HERE / "repaired").exists():
        raise RuntimeError("the bank is closed")
    await tx.execute("create table if not exists effect (n integer)")
    await tx.execute("insert into effect values ($1)", order.n)
"""

PUBLISH = """
import asyncio, os, sys
from shop import Order, service


async def main() -> None:
    await service.start(only=["maintenance"])
    for n in map(int, sys.argv[1:]):
        await service.publish(Order(n), delay=float(os.environ.get("DELAY", 0)))
    await service.drain()
    await service.stop()


asyncio.run(main())
"""


class Folder:
    """A user's directory with shop.py in it, and what they can do there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "shop.py").write_text(SHOP)
        (path / "publish.py").write_text(PUBLISH)
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
        self.environment = {**own, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}

    def cli(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return self._python("-m", "spoolproof", *arguments, settings=settings)

    def document(self, *arguments: str, exit_code: int = 0, **settings: str) -> dict[str, Any]:
        """Run a command with --json; standard output must be one document and nothing else."""
        done = self.cli(*arguments, "--json", **settings)
        assert exit_code == done.returncode, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def publish(self, *numbers: int, **settings: str) -> None:
        done = self._python("publish.py", *map(str, numbers), settings=settings)
        assert 0 == done.returncode, done.stderr

    def effects(self) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.path / ".spoolproof" / "store.db")) as database:
            try:
                return sorted(n for (n,) in database.execute("select n from effect"))
            except sqlite3.OperationalError:  # no handler has made the table yet
                return []

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    @contextlib.contextmanager
    def running(self, *options: str, **settings: str) -> Iterator[Server]:
        log = self.path / f"log-{time.monotonic_ns()}"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "spoolproof", "run", "shop:service", "--health-port", "0", *options],
                cwd=self.path,
                env={**self.environment, **settings},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            try:
                yield Server(process, log)
            finally:
                process.kill()
                process.communicate()

    def _python(self, *arguments: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )


class Server:
    """A running `spoolproof run`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def log(self) -> str:
        return self._log.read_text()

    def port(self) -> int:
        def find() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log()
            return re.search(r"health\.listening url=http://127\.0\.0\.1:(\d+)", self.log())

        return int(until(find)[1])

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port(), timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def await_answer(self, path: str, status: int) -> Any:
        """Wait until a path answers so; returns its body."""

        def ask() -> Any:
            assert self.process.poll() is None, self.log()
            found, body = self.get(path)
            return body if found == status else None

        return until(ask)

    def term(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> tuple[int, str]:
        """Wait for the end; returns exit code and standard output."""
        out, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out


def until(ask: Callable[[], T | None]) -> T:
    """Ask until the answer is neither None nor false."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.02)
    return answer


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


# --- run -------------------------------------------------------------------------------------------------------------


def test_sigterm_under_load_finishes_the_running_handler_and_loses_nothing(folder: Folder) -> None:
    """A8, V8: the running one ends and counts, the unstarted ones go back, readiness fails at once."""
    folder.publish(0, *range(1, 31))
    with folder.running("--json") as server:
        until(lambda: folder.has("running-0"))
        assert 200 == server.get("/ready")[0]
        server.term()
        unready = server.await_answer("/ready", 503)
        live = server.get("/live")[0]
        assert [] == folder.effects()
        (folder.path / "go").touch()
        code, out = server.end()

    assert ("draining", 200) == (unready["reason"], live)
    assert (0, {"schema": "spoolproof.run/1", "service": "shop", "ending": "drained"}) == (code, json.loads(out))
    assert [0] == folder.effects()

    with folder.running() as server:
        until(lambda: len(folder.effects()) >= 31)
        server.term()
        assert 0 == server.end()[0]
    assert list(range(31)) == folder.effects()


def test_a_handler_over_the_drain_limit_is_cut_off_and_runs_again(folder: Folder) -> None:
    """A8: a deploy ends in bounded time; what was cut off had no effect and is not lost."""
    folder.publish(0)
    with folder.running(SPOOLPROOF_DRAIN_SECONDS="0.5") as server:
        until(lambda: folder.has("running-0"))
        server.term()
        assert 0 == server.end()[0]
    assert [] == folder.effects()

    (folder.path / "go").touch()
    with folder.running() as server:
        until(folder.effects)
        server.term()
        assert 0 == server.end()[0]
    assert [0] == folder.effects()


def test_a_second_signal_skips_the_wait(folder: Folder) -> None:
    """Whoever asks twice is not made to wait for the limit."""
    folder.publish(0)
    with folder.running("--json", SPOOLPROOF_DRAIN_SECONDS="3600") as server:
        until(lambda: folder.has("running-0"))
        server.process.send_signal(signal.SIGINT)
        server.await_answer("/ready", 503)
        server.process.send_signal(signal.SIGINT)
        code, out = server.end()

    assert (0, "hurried") == (code, json.loads(out)["ending"])
    assert [] == folder.effects()


def test_what_nothing_expects_ends_the_process_with_1_and_without_a_drain(folder: Folder) -> None:
    """A crash is a crash; the next process does the work."""
    folder.publish(1)
    with folder.running("--json", SPOOLPROOF_FAILPOINTS="relay.after_fetch=raise") as server:
        code, out = server.end()
    assert (1, "fatal") == (code, json.loads(out)["ending"])

    with folder.running() as server:
        until(folder.effects)
        server.term()
        assert 0 == server.end()[0]
    assert [1] == folder.effects()


def test_a_start_that_waits_for_its_store_is_alive_and_not_started(folder: Folder, closed_port: int) -> None:
    """An orchestrator must see why, must not restart it, and must be able to end it."""
    url = f"postgresql://shop:{SECRET}@127.0.0.1:{closed_port}/shop"
    with folder.running("--json", SPOOLPROOF_STORE=url, SPOOLPROOF_SPOOL="off") as server:
        body = server.await_answer("/startupz", 503)
        live, ready = server.get("/live"), server.get("/ready")
        dependencies = server.get("/health/dependencies")
        server.term()
        code, out = server.end()

    assert {"status": "unavailable", "reason": "starting"} == body
    assert (200, 503, 503) == (live[0], ready[0], dependencies[0])
    assert "starting" == ready[1]["reason"]
    assert (0, "cancelled") == (code, json.loads(out)["ending"])
    assert SECRET not in json.dumps(dependencies) + server.log()


def test_a_service_without_its_broker_is_healthy_with_an_issue(folder: Folder, closed_port: int) -> None:
    """B5, with the password planted where it could leak: in the URL of a broker that is away."""
    url = f"amqp://shop:{SECRET}@127.0.0.1:{closed_port}/%2F?heartbeat=20"
    folder.publish(1, 2, 3)
    with folder.running(RABBITMQ_URL=url) as server:
        server.await_answer("/startupz", 200)
        bodies = {path: server.get(path) for path in ("/health", "/ready", "/live")}
        detail = until(lambda: _with_count(server.get("/health/dependencies")[1]))
        stranger = server.get("/health/dependencies", **{"X-Forwarded-For": "203.0.113.9"})[1]
        server.term()
        code, _ = server.end()

    rabbitmq = detail["dependencies"]["rabbitmq"]
    code_of_health, health = bodies["/health"]
    (issue,) = health.pop("issues")
    assert issue.startswith("rabbitmq: not connected since ")
    assert (200, {"status": "ok", "rabbitmq": False, "db": True}) == (code_of_health, health)
    assert (200, {"status": "ok", "accepting": True, "rabbitmq": False, "db": True}) == bodies["/ready"]
    assert (200, {"status": "ok"}) == bodies["/live"]
    assert ("healthy", "shop") == (detail["status"], detail["service"])
    assert ("unhealthy", False, 3, "optional") == tuple(
        rabbitmq[name] for name in ("status", "connected", "pending_events", "need")
    )
    assert f"amqp://shop:***@127.0.0.1:{closed_port}/%2F" == rabbitmq["url"]
    assert re.fullmatch(r"rabbitmq: not connected since \S+Z; 3 events kept in the outbox", detail["issues"][0])
    assert not {"issues", "version"} & set(stranger)
    assert {"status", "state", "connected", "need"} == set(stranger["dependencies"]["rabbitmq"])
    assert 0 == code
    assert SECRET not in json.dumps([bodies, detail, stranger]) + server.log()


def _with_count(body: Any) -> Any:
    """Return the body once the first sample of the outbox is in it."""
    return body if body["dependencies"]["rabbitmq"]["pending_events"] is not None else None


@pytest.mark.parametrize(
    ("settings", "exit_code", "code", "said"),
    [
        ({"SPOOLPROOF_STORE": "memory://"}, 4, "refused", ["SPOOLPROOF_STORE=memory://"]),
        ({"SPOOLPROOF_BROKER": "memory://"}, 4, "refused", ["SPOOLPROOF_BROKER=memory://"]),
        (
            {"SPOOLPROOF_STORE": "oracle://x", "SPOOLPROOF_DRAIN_SECONDS": "-1", "SPOOLPROOF_LISTEN": "maybe"},
            2,
            "settings",
            ["SPOOLPROOF_STORE", "SPOOLPROOF_DRAIN_SECONDS", "SPOOLPROOF_LISTEN"],
        ),
        ({"SPOOLPROOF_READY_NEEDS": "rabitmq"}, 2, "settings", ["SPOOLPROOF_READY_NEEDS=rabitmq"]),
        ({"SPOOLPROOF_FAILPOINTS": "nowhere=kill"}, 2, "settings", ["'nowhere'"]),
        (
            {
                "SPOOLPROOF_BROKER": "amqp://shop:{secret}@127.0.0.1:{closed}",
                "SPOOLPROOF_BROKER_REQUIRED": "true",
                "SPOOLPROOF_BROKER_MAX_RETRIES": "1",
            },
            3,
            "not_reachable",
            ["amqp://shop:***@127.0.0.1:"],
        ),
    ],
)
def test_a_start_that_cannot_be_is_one_clear_message(
    folder: Folder, closed_port: int, settings: dict[str, str], exit_code: int, code: str, said: list[str]
) -> None:
    """No traceback, every fault at once, the exit code a script can branch on, no password."""
    filled = {
        name: value.replace("{secret}", SECRET).replace("{closed}", str(closed_port))
        for name, value in settings.items()
    }
    done = folder.cli("run", "shop:service", "--health-port", "0", "--json", **filled)

    document = json.loads(done.stdout)
    assert (exit_code, code) == (done.returncode, document["error"]["code"]), done.stderr
    assert "spoolproof.run/1" == document["schema"]
    assert [] == [text for text in said if text not in document["error"]["message"]]
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_busy_configured_health_port_is_a_fault(folder: Folder) -> None:
    """The probe knows the port it was told; serving on another one would look dead."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        by_option = folder.document("run", "shop:service", "--health-port", str(port), exit_code=2)
        by_setting = folder.document("run", "shop:service", exit_code=2, SPOOLPROOF_HEALTH_PORT=str(port))

    for document in (by_option, by_setting):
        assert f"SPOOLPROOF_HEALTH_PORT={port}" in document["error"]["message"]


def test_memory_is_accepted_when_it_is_asked_for(folder: Folder) -> None:
    """For trying things out; the name of the option says what is given up."""
    with folder.running("--allow-memory", SPOOLPROOF_STORE="memory://", SPOOLPROOF_BROKER="memory://") as server:
        server.await_answer("/startupz", 200)
        server.term()
        assert 0 == server.end()[0]


def test_only_the_roles_asked_for_run(folder: Folder) -> None:
    """`--only` splits a service over processes: without a relay, nobody ships."""
    folder.publish(1)
    with folder.running("--only", "consumer,maintenance") as server:
        server.await_answer("/startupz", 200)
        status = folder.document("outbox", "status")
        server.term()
        assert 0 == server.end()[0]

    assert "roles=consumer,maintenance" in server.log()
    assert (1, []) == (status["rows"], [shard["relay"] for shard in status["shards"] if shard["relay"]])


# --- messages --------------------------------------------------------------------------------------------------------


def test_the_outbox_says_what_waits_and_who_ships_it(folder: Folder, closed_port: int) -> None:
    """The first question of a runbook: does the outbox grow, and is anybody shipping?"""
    folder.publish(1, 2)
    with folder.running(SPOOLPROOF_BROKER=f"amqp://127.0.0.1:{closed_port}") as server:
        server.await_answer("/startupz", 200)
        status = until(lambda: _with_relay(folder.document("outbox", "status")))
        text = folder.cli("outboxes", "status").stdout
        server.term()
        server.end()

    assert ("spoolproof.outbox.status/1", 2, False, 0) == tuple(
        status[name] for name in ("schema", "rows", "is_capped", "deferred")
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", status["oldest_at"])
    assert f"pid {server.process.pid}" in status["shards"][0]["relay"]
    assert "2 events wait" in text
    assert f"pid {server.process.pid}" in text


def _with_relay(status: dict[str, Any]) -> dict[str, Any] | None:
    return status if any(shard["relay"] for shard in status["shards"]) else None


def test_the_life_of_a_dead_letter(folder: Folder) -> None:
    """A4: seen, read, sent again once repaired; each verb named and reasoned, and refused where it makes no sense."""
    folder.publish(-1, -2)
    with folder.running() as server:
        letters = until(lambda: _all_of(2, folder.document("dlq", "ls")))
        first, second = (letter["id"] for letter in letters)
        (folder.path / "repaired").touch()
        replayed = folder.document("dlq", "replay", first, "--reason", "bank is back", "--actor", "ana")
        until(lambda: folder.effects())
        resolved = until(lambda: _in_state("resolved", folder.document("dlq", "show", first)))
        server.term()
        assert 0 == server.end()[0]

    assert {"handler"} == {letter["reason"] for letter in letters}
    assert not [letter for letter in letters if "body" in json.dumps(letter)]
    assert {"schema": "spoolproof.dlq.replay/1", "replayed": [first]} == replayed
    assert '{"n":-1}' == resolved["message"]["body"]
    assert "the bank is closed" in resolved["stack"]
    assert ["recorded", "replayed", "resolved"] == [entry["verb"] for entry in resolved["audit"]]
    assert ("ana", "bank is back") == (resolved["audit"][1]["actor"], resolved["audit"][1]["detail"])

    assert [second] == [letter["id"] for letter in folder.document("dlqs", "list")["dead_letters"]]
    for options, ids in (
        (("--state", "resolved"), [first]),
        (("--consumer", "shop.take", "--reason", "handler", "--type", "shop.order"), [second]),
        (("--consumer", "nobody"), []),
    ):
        found = folder.document("dlq", "ls", *options)["dead_letters"]
        assert ids == [letter["id"] for letter in found]

    again = folder.document("dlq", "replay", first, "--reason", "again", exit_code=4)
    asked = folder.document("dlq", "discard", second, "--reason", "junk", exit_code=4)
    discarded = folder.document("dlq", "discard", second, "--reason", "junk", "--yes")
    twice = folder.document("dlq", "discard", second, "--reason", "junk", "--yes", exit_code=4)

    assert ("refused", first) == (again["error"]["code"], again["failed"][0]["id"])
    assert "add --yes" == asked["error"]["hint"]
    assert [second] == discarded["discarded"]
    assert "refused" == twice["error"]["code"]


def test_what_fails_is_found_by_its_cause_mended_and_sent_again(folder: Folder) -> None:
    """3 a.m.: what is it, how many, is it still failing; and one of them has a typo that can be put right."""
    folder.publish(-1, -2)
    (folder.path / "evil.json").write_bytes(b'{"n":7,"note":"\\u001b[2J"}')
    with folder.running() as server:
        (group,) = until(lambda: _groups_of(2, folder.document("dlq", "groups")))
        first, second = (letter["id"] for letter in folder.document("dlq", "ls")["dead_letters"])
        by = ("--reason", "sign was wrong", "--actor", "ana")
        unread = folder.document("dlq", "edit", first, "--set", "n=1", *by, exit_code=2)
        wrong = folder.document("dlq", "edit", first, "--set", "n=x", *by, "--service", "shop:service", exit_code=2)
        edited = folder.document("dlq", "edit", first, "--set", "n=1", *by, "--service", "shop:service")
        late = folder.document("dlq", "edit", first, "--set", "n=3", *by, "--force", "--version", "1", exit_code=4)
        folder.document("dlq", "edit", second, "--body", "evil.json", *by, "--force")
        shown = folder.cli("dlq", "show", second).stdout
        folder.document("dlq", "replay", first, "--reason", "mended")
        until(lambda: folder.effects())
        resolved = until(lambda: _in_state("resolved", folder.document("dlq", "show", first)))
        server.term()
        assert 0 == server.end()[0]

    assert (2, "shop.take", "handler", "RuntimeError", "the bank is closed", True) == tuple(
        group[name] for name in ("count", "consumer", "reason", "error_class", "error", "is_failing")
    )
    assert "--service" in unread["error"]["message"]
    assert "--force" in wrong["error"]["message"]
    assert '-  "n": -1' in edited["diff"]
    assert "refused" == late["error"]["code"]
    assert "\x1b" not in shown
    assert ('{"n":-1}', '{"n":1}', [1]) == (
        resolved["original_body"]["body"],
        resolved["message"]["body"],
        folder.effects(),
    )
    assert ["recorded", "edited", "replayed", "resolved"] == [entry["verb"] for entry in resolved["audit"]]
    table = folder.cli("dlq", "groups", "--type", "shop.order", "--since", "1h").stdout
    assert "1 open" in table
    assert "still failing" in table


def test_many_are_replayed_by_one_command_that_need_not_stay(folder: Folder) -> None:
    """First how many, then one, then the rest; and a cause that is still there stops it after one."""
    folder.publish(-1, -2, -3)
    who = ("--reason", "bank is back", "--actor", "ana")
    by = ("--consumer", "shop.take", *who)
    with folder.running() as server:
        until(lambda: _groups_of(3, folder.document("dlq", "groups")))
        dry = folder.document("dlq", "replay", *by, "--dry-run")
        unsure = folder.document("dlq", "replay", *by, exit_code=4)
        stopped = folder.document("dlq", "replay", *by, "--yes", exit_code=1)
        (folder.path / "repaired").touch()
        folder.document("dlq", "resume", stopped["id"], *who)
        resumed = folder.document("dlq", "bulk", stopped["id"], "--watch")
        detached = folder.document("dlq", "replay", "--all", *who, "--yes", "--detach")
        until(lambda: folder.document("dlq", "bulk", detached["id"])["state"] == "done")
        late = folder.document("dlq", "cancel", detached["id"], *who, exit_code=4)
        text = folder.cli("dlq", "bulk", stopped["id"]).stdout
        until(lambda: [-3, -2, -1] == folder.effects())
        server.term()
        assert 0 == server.end()[0]

    assert ({"schema": "spoolproof.dlq.replay/1", "matching": 3}, "add --yes") == (dry, unsure["error"]["hint"])
    assert ("stopped", 1, 2) == (stopped["state"], stopped["moved"], stopped["left"])
    assert ("done", 3, 3, 0) == tuple(resumed[name] for name in ("state", "total", "moved", "skipped"))
    assert (1, "refused") == (detached["total"], late["error"]["code"])
    assert "failed again: RuntimeError: the bank is closed" in text
    assert 2 == len(folder.document("dlq", "bulk")["bulks"])
    idle = folder.document("dlq", "discard", "--all", *who, "--yes")
    assert ("done", 0, False) == (idle["state"], idle["total"], idle["is_worked"])


def test_dead_letters_are_taken_to_another_store_and_never_doubled(folder: Folder, tmp_path: Path) -> None:
    """Out of a store that is to be deleted, into one where somebody has time for them."""
    folder.publish(-1, -2)
    with folder.running() as server:
        until(lambda: _all_of(2, folder.document("dlq", "ls")))
        server.term()
        server.end()
    assert 0 == folder.cli("dlq", "export", "--out", "letters.jsonl").returncode
    there = folder.cli("dlq", "export", "--out", "letters.jsonl")
    (folder.path / "cut.jsonl").write_bytes((folder.path / "letters.jsonl").read_bytes()[:-9])
    other = {"SPOOLPROOF_STORE": f"sqlite:///{tmp_path / 'other.db'}"}
    assert 0 == folder.cli("migrate", **other).returncode

    cut = folder.document("dlq", "import", "cut.jsonl", "--reason", "moved", exit_code=2, **other)
    empty = folder.document("dlq", "ls", **other)["dead_letters"]
    counts = [folder.document("dlq", "import", "letters.jsonl", "--reason", "moved", **other) for _ in range(2)]

    before, after = (folder.document("dlq", "ls", **place)["dead_letters"] for place in ({}, other))
    page = folder.document("dlq", "ls", "--limit", "1", **other)
    rest = folder.document("dlq", "ls", "--limit", "5", "--after", page["next"], **other)
    assert (2, "there is such a file" in there.stderr) == (there.returncode, True)
    assert ("line 2" in cut["error"]["message"], []) == (True, empty)
    assert [(2, 0), (0, 2)] == [(one["imported"], one["known"]) for one in counts]
    assert before == after
    assert (after, None) == ([*page["dead_letters"], *rest["dead_letters"]], rest["next"])


def _groups_of(count: int, document: dict[str, Any]) -> list[dict[str, Any]] | None:
    groups: list[dict[str, Any]] = document["groups"]
    return groups if count == sum(group["count"] for group in groups) else None


def _all_of(count: int, document: dict[str, Any]) -> list[dict[str, Any]] | None:
    letters: list[dict[str, Any]] = document["dead_letters"]
    return letters if len(letters) == count else None


def _in_state(state: str, document: dict[str, Any]) -> dict[str, Any] | None:
    letter: dict[str, Any] = document["dead_letter"]
    return letter if letter["state"] == state else None


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (("dlq", "show", "nothing"), 1, "not_found"),
        (("dlq", "ls", "--after", "x"), 2, "usage"),
        (("dlq", "bulk", "nothing"), 1, "not_found"),
        (("dlq", "replay", "--reason", "x"), 2, "usage"),
        (("dlq", "discard", "nothing", "--all", "--reason", "x"), 2, "usage"),
        (("dlq", "ls", "--since", "yesterday"), 2, "usage"),
        (("dlq", "edit", "nothing", "--set", "n", "--reason", "x"), 2, "usage"),
        (("dlq", "edit", "nothing", "--set", "n=1", "--reason", "x"), 1, "not_found"),
        (("dlq", "replay", "nothing", "--to", "events", "--reason", "x"), 2, "usage"),
        (("dlq", "import", "nothing.jsonl", "--reason", "x"), 2, "usage"),
        (("dlq", "replay", "nothing", "--reason", "x"), 1, "not_found"),
        (("dlq", "discard", "nothing", "--reason", "x", "--yes"), 1, "not_found"),
        (("dlq", "replay", "nothing", "--reason", "  "), 2, "usage"),
        (("dlq", "discard", "nothing", "--reason", " ", "--yes"), 2, "usage"),
        (("dlq", "replay", "a", "b", "--reason", "x"), 4, "refused"),
    ],
)
def test_a_verb_that_cannot_be_done_says_why(
    folder: Folder, arguments: tuple[str, ...], exit_code: int, code: str
) -> None:
    """At 3 a.m. the exit code and the hint are all there is."""
    assert 0 == folder.cli("migrate").returncode

    error = folder.document(*arguments, exit_code=exit_code)["error"]

    assert code == error["code"]
    assert error["message"]
    assert error["hint"]


def test_what_is_scheduled_is_seen_and_taken_back(folder: Folder) -> None:
    """A reminder that must not go out is found by its time and its type, and cancelled once."""
    folder.publish(1, DELAY="3600")
    before = folder.document("schedule", "ls")
    (message,) = before["messages"]
    asked = folder.document("schedule", "cancel", message["id"], exit_code=4)
    cancelled = folder.document("schedule", "cancel", message["id"], "--yes")
    again = folder.document("schedule", "cancel", message["id"], "--yes", exit_code=1)

    assert ("shop", "shop.order", "events") == (message["service"], message["type"], message["destination"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", message["due_at"])
    assert "add --yes" == asked["error"]["hint"]
    assert {"schema": "spoolproof.schedule.cancel/1", "cancelled": message["id"], "rows": 1} == cancelled
    assert ("not_found", "spoolproof schedule ls shows what is scheduled") == (
        again["error"]["code"],
        again["error"]["hint"],
    )
    assert [] == folder.document("schedule", "ls")["messages"]
    assert "nothing is scheduled" in folder.cli("schedule", "ls").stdout


READS: list[tuple[str, ...]] = [
    ("webhook", "ls"),
    ("saga", "ls"),
    ("saga", "retry", "x", "--reason", "y"),
    ("outbox", "status"),
    ("dlq", "ls"),
    ("dlq", "groups"),
    ("dlq", "show", "x"),
    ("dlq", "edit", "x", "--set", "n=1", "--reason", "y", "--force"),
    ("dlq", "replay", "x", "--reason", "y"),
    ("dlq", "discard", "x", "--reason", "y", "--yes"),
    ("schedule", "ls"),
    ("schedule", "cancel", "x", "--yes"),
    ("migrate",),
]


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_a_store_that_is_away_ends_every_command_with_3(
    folder: Folder, closed_port: int, arguments: tuple[str, ...]
) -> None:
    """Not "failed": trying again later is the right thing to do."""
    url = f"postgresql://shop:{SECRET}@127.0.0.1:{closed_port}/shop"
    done = folder.cli(*arguments, "--json", SPOOLPROOF_STORE=url)

    document = json.loads(done.stdout)
    assert (3, "not_reachable") == (done.returncode, document["error"]["code"]), done.stderr
    assert (
        f"spoolproof.{'.'.join(arguments[:1] if arguments == ('migrate',) else arguments[:2])}/1"
        == (document["schema"])
    )
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_a_store_in_memory_is_refused(folder: Folder, arguments: tuple[str, ...]) -> None:
    """An empty answer from a store nobody uses would be believed."""
    assert "refused" == folder.document(*arguments, exit_code=4, SPOOLPROOF_STORE="memory://")["error"]["code"]


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_every_settings_fault_is_listed(folder: Folder, arguments: tuple[str, ...]) -> None:
    """One run, all faults."""
    document = folder.document(*arguments, exit_code=2, SPOOLPROOF_STORE="oracle://x", SPOOLPROOF_LISTEN="maybe")

    assert "SPOOLPROOF_STORE" in document["error"]["message"]
    assert "SPOOLPROOF_LISTEN" in document["error"]["message"]


def test_looking_makes_no_store(folder: Folder) -> None:
    """In the wrong directory, an empty store made in passing would answer "nothing waits"."""
    for arguments in READS[:-1]:
        assert "not_reachable" == folder.document(*arguments, exit_code=3)["error"]["code"]
    assert not folder.has(".spoolproof")


# --- schema, doctor, the rest ----------------------------------------------------------------------------------------


def test_migrate_brings_the_schema_up_to_date_and_shows_it(folder: Folder) -> None:
    """`--check` is for CI, `--sql` for those who run it by other means; the second run has nothing to do."""
    due = folder.document("migrate", "--check", exit_code=1)
    sql = folder.document("migrate", "--sql")["sql"]
    first = folder.document("migrate")
    second = folder.document("migrate")
    done = folder.document("migrate", "--check")

    assert (0, []) == (due["found"], due["applied"])
    assert "create table" in sql.lower()
    assert first["applied"]
    assert [] == second["applied"]
    assert done["found"] == done["needed"] == due["needed"]


def test_commands_refuse_a_schema_they_do_not_know(folder: Folder) -> None:
    """Reading it could mislead, writing to it could harm; the command that mends it is named."""
    assert 0 == folder.cli("migrate").returncode
    with contextlib.closing(sqlite3.connect(folder.path / ".spoolproof" / "store.db")) as database:
        (table,) = next(database.execute("select name from sqlite_master where name like '%version%'"))
        columns = [column[1] for column in database.execute(f"pragma table_info({table})")]
        rows = [(99, *row[1:]) for row in database.execute(f"select * from {table} limit 1")]
        database.executemany(f"insert into {table} values ({','.join('?' * len(columns))})", rows)
        database.commit()

    error = folder.document("outbox", "status", exit_code=1)["error"]

    assert "schema_outdated" == error["code"]
    assert "99" in error["message"]


def test_doctor_passes_a_fresh_directory_and_leaves_it_as_it_is(folder: Folder) -> None:
    """The first thing to run, before anything exists."""
    document = folder.document("doctor")

    assert 0 == document["counts"]["fail"]
    assert {"settings", "data directory", "file system", "store", "sqlite", "broker", "alerts"} == {
        finding["check"] for finding in document["findings"]
    }
    assert not folder.has(".spoolproof")


def test_doctor_finds_what_is_wrong_and_names_what_mends_it(folder: Folder, closed_port: int) -> None:
    """Everything in one run: the store, and each broker node by itself; without a password."""
    store = f"postgresql://shop:{SECRET}@127.0.0.1:{closed_port}/shop"
    node = f"amqp://shop:{SECRET}@127.0.0.1:{closed_port}"
    done = folder.cli("doctor", "--json", SPOOLPROOF_STORE=store, SPOOLPROOF_BROKER=f"{node},{node}")

    failed = [finding for finding in json.loads(done.stdout)["findings"] if finding["verdict"] == "fail"]
    assert 1 == done.returncode
    assert ["store", "broker", "broker"] == [finding["check"] for finding in failed]
    assert all(finding["meaning"] and finding["remedy"] for finding in failed)
    assert SECRET not in done.stdout + done.stderr


def test_doctor_reports_wrong_settings_as_findings(folder: Folder) -> None:
    """It must not fall over the very thing it is asked about."""
    document = folder.document("doctor", exit_code=1, SPOOLPROOF_STORE="oracle://x", SPOOLPROOF_LISTEN="maybe")

    assert [("settings", "fail"), ("settings", "fail")] == [
        (finding["check"], finding["verdict"]) for finding in document["findings"]
    ]


def test_doctor_fails_on_a_file_that_is_no_database(folder: Folder) -> None:
    """A wrong path in SPOOLPROOF_BROKER must not be found out by the first publish."""
    (folder.path / "notes.txt").write_text("bread, milk, and a long line of other things")

    document = folder.document("doctor", exit_code=1, SPOOLPROOF_BROKER="embedded:///notes.txt")

    assert ["broker"] == [finding["check"] for finding in document["findings"] if finding["verdict"] == "fail"]


@pytest.mark.servers
def test_doctor_reads_the_real_servers(folder: Folder, rabbitmq_url: str, postgres_url: str) -> None:
    """Versions, durability and the missing schema, from servers that run."""
    settings = {"SPOOLPROOF_STORE": postgres_url, "SPOOLPROOF_BROKER": rabbitmq_url}

    before = folder.document("doctor", exit_code=1, **settings)
    migrated = folder.cli("migrate", **settings)
    after = folder.cli("doctor", "--json", **settings)

    assert ["schema"] == [one["check"] for one in before["findings"] if one["remedy"] == "spoolproof migrate"]
    assert 0 == migrated.returncode, migrated.stderr
    found = {one["check"]: one["found"] for one in json.loads(after.stdout)["findings"]}
    assert re.search(r"RabbitMQ \d+\.\d+", found["broker"])
    assert re.match(r"\d+\.\d+", found["postgresql"])
    assert "schema" in found
    assert {"fsync", "synchronous_commit", "full_page_writes"} <= set(found)


def test_help_loads_no_driver() -> None:
    """`--help` must work without any extra installed, and at once."""
    code = """
import contextlib, io, sys
from spoolproof.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(sorted({"pika", "asyncpg", "sqlalchemy", "uvloop"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS)

    assert ("[]\n", 0) == (done.stdout, done.returncode), done.stderr


def test_version_names_what_runs(folder: Folder) -> None:
    """The first line of a bug report."""
    import spoolproof

    document = folder.document("version")

    assert ("spoolproof.version/1", spoolproof.__version__) == (document["schema"], document["version"])
    assert sqlite3.sqlite_version == document["with"]["sqlite"]
