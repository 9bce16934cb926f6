"""Killed or frozen at each boundary, a saga has all its effects once, or none in force, or is in review. Never half."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from spoolproof.ports.reviews import ReviewFilter, Reviews
from spoolproof.ports.sagas import FINAL, SagaFilter, SagaRow, Sagas, SagaState, StepRow
from spoolproof.ports.store import Store
from spoolproof.saga.question import Kind, read

sys.path.insert(0, str(Path(__file__).parent))
from schedule_racer import opened  # type: ignore[import-not-found]

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]
ON = ["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)]
POINTS = [
    *("saga.after_rescue=kill@2", "saga.after_claim=kill@1", "saga.after_claim=kill@3", "saga.before_commit=kill@2"),
    *("saga.after_commit=kill@2", "saga.after_intent=kill@1", "saga.after_intent=kill@4", "saga.after_call=kill@1"),
    *("saga.after_call=kill@5", "saga.before_write=kill@3", "saga.before_write=kill@9", "saga.after_write=kill@2"),
    *("saga.after_write=kill@8", "saga.after_turn_back=kill@1", "saga.after_sleep=kill@1", "saga.after_turn=kill@1"),
    "saga.after_review=kill@1",
]

IN_EVERY_RUN = {
    *("saga.after_intent=kill@4", "saga.after_call=kill@5", "saga.before_write=kill@9"),
    *("saga.after_commit=kill@2", "saga.after_turn_back=kill@1", "saga.after_review=kill@1"),
}
"""Of those on PostgreSQL; the others are killed there in `make proof`, and on SQLite always."""


def on_both(points: list[str]) -> list[Any]:
    """Return pairs of a store and a point."""
    found: list[Any] = [("sqlite", point) for point in points]
    for point in points:
        marks = [pytest.mark.servers, *([] if point in IN_EVERY_RUN else [pytest.mark.proof])]
        found.append(pytest.param("postgresql", point, marks=marks))
    return found


#: the second is refused by its pivot; when a process has died in that, it may have landed, and a person is asked
ENDS = [
    {"o-0": SagaState.COMPLETED, "o-1": undone, "o-2": SagaState.RUNNING}
    for undone in (SagaState.COMPENSATED, SagaState.IN_REVIEW)
]


@pytest.fixture
def url(on: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    found: str = f"sqlite:///{tmp_path / 'store.db'}" if on == "sqlite" else request.getfixturevalue("postgres_url")
    return found


@pytest.mark.parametrize(("on", "point"), on_both(POINTS))
def test_killed_anywhere_nothing_is_half_done(url: str, point: str, tmp_path: Path) -> None:
    """SA2, SA4, AC1: three orders, one of which is refused at its last step and one asks at its end; one with a bug."""
    orders = 4 if "after_review" in point else 3
    with node(tmp_path, url, orders, point) as first:
        assert -signal.SIGKILL == first.wait(60), "the failpoint was not reached"
    with node(tmp_path, url, orders) as second:
        until(second, "done")
        second.communicate("", timeout=20)

    states = asyncio.run(verdict(url, tmp_path))

    assert states.pop("o-3", SagaState.IN_REVIEW) is SagaState.IN_REVIEW
    assert states in ENDS


@pytest.mark.parametrize(
    ("on", "point"),
    [
        *(("sqlite", point) for point in ("review.before_resolve", "review.before_commit", "review.after_resolve")),
        pytest.param("postgresql", "review.before_resolve", marks=pytest.mark.servers),
    ],
)
def test_an_answer_and_its_effect_are_both_there_or_neither(url: str, point: str, tmp_path: Path) -> None:
    """RV1: killed in the decision, the order either still asks or goes on; answered again it ends once."""
    with node(tmp_path, url, 3, f"{point}=kill@1", "decide") as first:
        assert -signal.SIGKILL == first.wait(60), "the failpoint was not reached"
    with node(tmp_path, url, 3, "", "decide") as second:
        until(second, "done")
        second.communicate("", timeout=20)

    states = asyncio.run(verdict(url, tmp_path))

    assert SagaState.COMPLETED is states["o-2"]
    assert not {SagaState.RUNNING, SagaState.IN_REVIEW} & set(states.values())


def test_frozen_on_a_file_past_its_lease_its_late_writes_do_nothing(tmp_path: Path) -> None:
    """SA1 on SQLite, which has one writer: stopped outside its lock, or everybody would wait for it to be killed."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with node(tmp_path, url, 12) as frozen:
        until(frozen, "ready")
        stop_outside(frozen, tmp_path / "store.db.writer")
        with node(tmp_path, url, 12) as peer:
            until(peer, "done")
            before = asyncio.run(journals(url))
            frozen.send_signal(signal.SIGCONT)
            until(frozen, "done")
            assert before == asyncio.run(journals(url))
            peer.communicate("", timeout=20)
        frozen.communicate("", timeout=20)

    assert 12 == len(asyncio.run(verdict(url, tmp_path)))


@pytest.mark.parametrize("on", ["postgresql"])
@pytest.mark.servers
@pytest.mark.parametrize("point", ["saga.after_intent=freeze:0@4", "saga.after_call=freeze:0@2"])
def test_frozen_past_its_lease_its_late_writes_do_nothing(url: str, point: str, tmp_path: Path) -> None:
    """SA1: SIGSTOP leaves connections open and clocks running; it comes back when all is over."""
    with node(tmp_path, url, 3, point) as frozen:
        until_stopped(frozen)
        with node(tmp_path, url, 3) as peer:
            until(peer, "done")
            before = asyncio.run(journals(url))
            frozen.send_signal(signal.SIGCONT)
            until(frozen, "done")
            assert before == asyncio.run(journals(url))
            peer.communicate("", timeout=20)
        frozen.communicate("", timeout=20)

    states = asyncio.run(verdict(url, tmp_path))

    assert states in ENDS


@pytest.mark.proof
@pytest.mark.parametrize("on", ON)
def test_fifty_orders_and_eight_deaths_add_up(url: str, tmp_path: Path) -> None:
    """Where it dies is drawn; what is counted at the end is not."""
    draw = random.Random(7)
    for _ in range(8):
        point = draw.choice(POINTS).partition("=")[0]
        with node(tmp_path, url, 50, f"{point}=kill@{draw.randint(1, 40)}") as dying:
            until(dying, "done")  # or its death
    with node(tmp_path, url, 50) as last:
        until(last, "done")
        last.communicate("", timeout=20)

    states = Counter(asyncio.run(verdict(url, tmp_path)).values())

    assert 17 == states[SagaState.COMPLETED]
    assert 16 == states[SagaState.RUNNING], "each asks"
    assert 50 == sum(states.values()) == 33 + states[SagaState.COMPENSATED] + states[SagaState.IN_REVIEW]
    assert states[SagaState.COMPENSATED] >= 10


async def verdict(url: str, folder: Path) -> dict[str, SagaState]:
    """Return the states, after comparing each with what the world and the store hold."""
    with closing(sqlite3.connect(folder / "world.db")) as connection:
        effects = Counter(connection.execute("select name, id from effect").fetchall())
        calls = Counter(connection.execute("select name, id from call").fetchall())
    found = {}
    async with opened(url, "crash") as store:
        async with store.transaction() as tx:
            reserved = {row["id"]: row["n"] for row in await tx.fetch("select id, n from reserved")}
        items = Counter(item.evidence["saga"] for item in await store.port(Reviews).search(ReviewFilter(limit=1000)))
        for saga, steps in await _read(store):
            found[saga.key] = saga.state
            asking = saga.state in (SagaState.RUNNING, SagaState.IN_REVIEW)
            assert int(asking) == items[saga.saga_id], "SA5: one open item, if and only if a person is asked"
            net = [
                reserved.get(saga.key, 0),
                effects["charge", saga.key] - effects["refund", saga.key],
                effects["label", saga.key] - effects["void", saga.key],
                effects["ship", saga.key],
            ]
            asks = "" if saga.question is None else read(saga.question).kind
            wanted = [0, 0, 0, 0] if saga.state is SagaState.COMPENSATED else [1, 1, 1, asks != Kind.PAST_PIVOT]
            if saga.state is SagaState.ABANDONED:  # its pivot may have landed, and a person has let it be
                wanted[3] = net[3]
            assert wanted == net, (saga, steps)
            assert (saga.state is SagaState.IN_REVIEW) == bool(asks)
            assert calls["label", saga.key] <= 1, "a once step was called again after a call that had landed"
            assert saga.owner is None
            assert all(step.state in FINAL or step.name == "wait:review:ok" for step in steps if not asks), steps
    return found


async def journals(url: str) -> list[tuple[SagaRow, tuple[StepRow, ...]]]:
    """Return all there is of every saga."""
    async with opened(url, "crash") as store:
        return await _read(store)


async def _read(store: Store) -> list[tuple[SagaRow, tuple[StepRow, ...]]]:
    sagas = store.port(Sagas)
    found = []
    for saga in await sagas.search(SagaFilter(limit=1000)):
        journal = await sagas.journal(saga.saga_id)
        assert journal is not None
        found.append((saga, tuple(journal.steps)))
    return found


def until(process: subprocess.Popen[str], word: str) -> None:
    """Read until it says so, or has died."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return


def stop_outside(process: subprocess.Popen[str], lock: Path) -> None:
    """Stop it at a moment when it does not hold the file's write lock."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        process.send_signal(signal.SIGSTOP)
        until_stopped(process)
        with lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("it holds the write lock all the time")


def until_stopped(process: subprocess.Popen[str]) -> None:
    """Return when it stands still."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


@contextmanager
def node(folder: Path, url: str, orders: int, point: str = "", *words: str) -> Iterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    own = {
        "SPOOLPROOF_STORE": url,
        "SPOOLPROOF_DATA_DIR": str(folder),
        "SPOOLPROOF_LEASE_SECONDS": "1",
        "SPOOLPROOF_MIGRATE": "auto",
        **({"SPOOLPROOF_FAILPOINTS": point} if point else {}),
    }
    stderr = (folder / "stderr").open("a")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("saga_node.py")), str(orders), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**inherited, **own},
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()
