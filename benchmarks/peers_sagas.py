"""What becomes of a workflow of three steps when its process is killed: Spoolproof, DBOS and Edda, on SQLite.

Run by hand, not with the benchmarks: `python benchmarks/peers_sagas.py spoolproof dbos edda [--kills 50]`, with an
interpreter that has `dbos` and `edda-framework` for those two.

A process starts twelve orders (reserve, charge, ship; every third is refused at ship, and what was done must be undone)
and is killed with SIGKILL at a random moment. A second process starts the orders again of which no start was
acknowledged, as a caller would, and has 60 s to bring everything to its end. What the steps do is kept in a file of its
own, which does each thing once for a key; the key is the best that the library offers: `step.key`, workflow id and step
id, instance id and name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

ORDERS = 12
END_SECONDS = 60.0
EFFECTS = {"reserve": 1, "charge": 1, "ship": 1}
UNDONE_BY = {"release": "reserve", "refund": "charge"}
WORLD = """
pragma journal_mode = wal;
create table if not exists effect (key text primary key, name text, id text);
create table if not exists call (name text, id text, key text);
create table if not exists accepted (id text primary key)
"""


class RefusedByCarrier(Exception):
    """Nobody drives there."""


def world(folder: Path) -> Any:
    """Open the other systems."""
    connection = sqlite3.connect(folder / "world.db", isolation_level=None, timeout=30)
    connection.executescript(WORLD)
    return closing(connection)


def is_refused(id: str) -> bool:
    """Return whether the carrier will not take it."""
    return int(id.partition("-")[2]) % 3 == 2


async def effect(folder: Path, name: str, id: str, key: str) -> None:
    """Do something in the other systems, once for its key; it takes a moment before and after."""
    await asyncio.sleep(random.uniform(0.0, 0.01))
    with world(folder) as connection:
        connection.execute("insert into call values (?, ?, ?)", (name, id, key))
        connection.execute("insert or ignore into effect values (?, ?, ?)", (key, name, id))
    await asyncio.sleep(random.uniform(0.0, 0.01))


def accept(folder: Path, id: str) -> None:
    """Remember that the start of an order was acknowledged."""
    with world(folder) as connection:
        connection.execute("insert or ignore into accepted values (?)", (id,))


# --- the processes ---------------------------------------------------------------------------------------------------


async def node_spoolproof(folder: Path, ids: list[str], is_last: bool) -> int:
    """A saga; returns how many are not over."""
    from spoolproof import Service
    from spoolproof.ports.sagas import SagaState
    from spoolproof.saga import Flow, Refused, Step
    from spoolproof.settings import Settings

    globals().update(Step=Step, Flow=Flow)
    settings = Settings(  # type: ignore[call-arg]
        _env_file=None, store=f"sqlite:///{folder / 'store.db'}", broker="memory://", migrate="auto", data_dir=folder
    )
    service = Service("peers", settings=settings)
    order: Any = service.saga("order", version=1)

    @order.step(tombstone=True)
    async def reserve(step: Step, id: str) -> str:
        await effect(folder, "reserve", id, step.key)
        return id

    @reserve.compensate
    async def release(step: Step, id: str, output: str | None) -> None:
        await undo(folder, "release", id, step.forward_key, step.key)

    @order.step(tombstone=True)
    async def charge(step: Step, id: str) -> str:
        await effect(folder, "charge", id, step.key)
        return id

    @charge.compensate
    async def refund(step: Step, id: str, output: str | None) -> None:
        await undo(folder, "refund", id, step.forward_key, step.key)

    @order.step(pivot=True)
    async def ship(step: Step, id: str) -> None:
        if is_refused(id):
            raise Refused("nobody drives there")
        await effect(folder, "ship", id, step.key)

    @order.flow
    async def place(saga: Flow, id: str) -> None:
        await saga.do(reserve)
        await saga.do(charge)
        await saga.do(ship)

    await service.start()
    for id in ids:
        await order.start(id, id=id)
        accept(folder, id)
    moving = {SagaState.RUNNING, SagaState.COMPENSATING, SagaState.SETTLING}

    async def left() -> int:
        return sum(saga.state in moving for saga in await service.saga.search(limit=1000))

    found = await until_none(left)
    if is_last:
        asked = sum(saga.state is SagaState.IN_REVIEW for saga in await service.saga.search(limit=1000))
        (folder / "asked").write_text(str(asked))
    await service.stop()
    return found


async def undo(folder: Path, name: str, id: str, forward: str, key: str) -> None:
    """Undo what landed under a key; nothing if it did not."""
    with world(folder) as connection:
        has_landed = connection.execute("select 1 from effect where key = ?", (forward,)).fetchone()
    if has_landed:
        await effect(folder, name, id, key)


async def node_dbos(folder: Path, ids: list[str], is_last: bool) -> int:
    """A workflow with steps; the way back is its `except`."""
    from dbos import DBOS, SetWorkflowID

    async def step(name: str, id: str) -> None:
        await effect(folder, name, id, f"{DBOS.workflow_id}/{DBOS.step_id}")

    steps: dict[str, Any] = {}
    for name in ("reserve", "charge", "refund", "release"):

        async def run(id: str, name: str = name) -> None:
            await step(name, id)

        run.__qualname__ = run.__name__ = name
        steps[name] = DBOS.step(name=name)(run)

    @DBOS.step()
    async def ship(id: str) -> None:
        if is_refused(id):
            raise RefusedByCarrier
        await step("ship", id)

    @DBOS.workflow()
    async def place(id: str) -> None:
        await steps["reserve"](id)
        await steps["charge"](id)
        try:
            await ship(id)
        except RefusedByCarrier:
            await steps["refund"](id)
            await steps["release"](id)

    url = f"sqlite:///{folder / 'store.db'}"
    DBOS(config={"name": "peers", "system_database_url": url, "log_level": "CRITICAL"})
    DBOS.launch()
    for id in ids:
        with SetWorkflowID(id):
            await DBOS.start_workflow_async(place, id)
        accept(folder, id)

    async def left() -> int:
        return len(await DBOS.list_workflows_async(status=["PENDING", "ENQUEUED"]))

    return await until_none(left)


async def node_edda(folder: Path, ids: list[str], is_last: bool) -> int:
    """A workflow with compensations; `start` returns when it has ended, and takes no id."""
    from edda import EddaApp, WorkflowContext, activity, compensation, on_failure, workflow
    from edda.exceptions import RetryExhaustedError
    from edda.retry import RetryPolicy

    globals().update(WorkflowContext=WorkflowContext)

    @compensation
    async def release(ctx: WorkflowContext, id: str) -> None:
        await effect(folder, "release", id, f"{ctx.instance_id}/release")

    @compensation
    async def refund(ctx: WorkflowContext, id: str) -> None:
        await effect(folder, "refund", id, f"{ctx.instance_id}/refund")

    @activity
    @on_failure(release)
    async def reserve(ctx: WorkflowContext, id: str) -> dict[str, str]:
        await effect(folder, "reserve", id, f"{ctx.instance_id}/reserve")
        return {"id": id}

    @activity
    @on_failure(refund)
    async def charge(ctx: WorkflowContext, id: str) -> dict[str, str]:
        await effect(folder, "charge", id, f"{ctx.instance_id}/charge")
        return {"id": id}

    @activity(retry_policy=RetryPolicy(max_attempts=1))
    async def ship(ctx: WorkflowContext, id: str) -> dict[str, str]:
        if is_refused(id):
            raise RefusedByCarrier
        await effect(folder, "ship", id, f"{ctx.instance_id}/ship")
        return {"id": id}

    @workflow(lock_timeout_seconds=5)  # default 300
    async def place(ctx: WorkflowContext, id: str) -> dict[str, str]:
        await reserve(ctx, id)
        await charge(ctx, id)
        await ship(ctx, id)
        return {"id": id}

    app = EddaApp(
        service_name="peers",
        db_url=f"sqlite:///{folder / 'store.db'}",
        leader_heartbeat_interval=1,
        leader_lease_duration=3,
    )
    await app.initialize()

    for id in ids:  # one after another: beside each other they end with "database is locked"
        try:
            await place.start(id=id)
        except RetryExhaustedError:  # of ship; it was undone by now
            pass
        except Exception as error:
            print(f"edda: a start failed: {error!r}"[:300], file=sys.stderr)
            continue
        accept(folder, id)

    async def left() -> int:
        with closing(sqlite3.connect(folder / "store.db", timeout=30)) as connection:
            over = "('completed', 'failed', 'cancelled')"
            sql = f"select count(*) from workflow_instances where status not in {over}"
            return int(connection.execute(sql).fetchone()[0])

    return await until_none(left)


async def until_none(left: Any) -> int:
    """Wait until nothing is left; returns what is after END_SECONDS."""
    until = time.monotonic() + END_SECONDS
    while (found := await left()) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return int(found)


# --- the trials ------------------------------------------------------------------------------------------------------


def trial(library: str, seed: int) -> Counter[str]:
    """Kill one process and let a second one finish; returns what is wrong, by name."""
    draw = random.Random(f"{library}/{seed}")
    with tempfile.TemporaryDirectory(prefix="spoolproof-peers-") as name:
        folder = Path(name)
        with world(folder):
            pass
        first = _node(library, folder, draw.random())
        while not _count(folder, "call"):
            if first.poll() is not None:
                raise RuntimeError(f"{library} ended with {first.returncode} before its first step")
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.6))
        was_killed = first.poll() is None
        if was_killed:
            first.send_signal(signal.SIGKILL)
        first.communicate()
        last = _node(library, folder, 0.0, "--last")
        output, _ = last.communicate(timeout=600)
        if last.returncode:
            raise RuntimeError(f"{library} ended with {last.returncode}")
        found = _verdict(folder)
        found["hanging"] += json.loads(output.splitlines()[-1])
        found["killed"] += was_killed
        asked = folder / "asked"
        found["asked"] += int(asked.read_text()) if asked.exists() else 0
        return found


def _node(library: str, folder: Path, seed: float, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--node", library, "--folder", str(folder), "--seed", str(seed), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)


def _count(folder: Path, table: str) -> int:
    with world(folder) as connection:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


def _verdict(folder: Path) -> Counter[str]:
    with world(folder) as connection:
        landed = Counter(connection.execute("select id, name from effect").fetchall())
        calls = _count(folder, "call") - _count(folder, "effect")
    found: Counter[str] = Counter({"repeated": calls})
    for number in range(ORDERS):
        id = f"o-{number}"
        net = {name: landed[id, name] for name in EFFECTS}
        for undone_by, name in UNDONE_BY.items():
            net[name] -= landed[id, undone_by]
        wanted = dict.fromkeys(EFFECTS, 0) if is_refused(id) else EFFECTS
        found["lost"] += any(net[name] < wanted[name] for name in EFFECTS)
        found["doubled"] += not is_refused(id) and any(net[name] > 1 for name in EFFECTS)
        found["left behind"] += is_refused(id) and any(net[name] > 0 for name in EFFECTS)
    return found


def main() -> None:
    """Run the trials of each library and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", choices=["spoolproof", "dbos", "edda", []])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--node")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=float)
    parser.add_argument("--last", action="store_true")
    given = parser.parse_args()
    if given.node is not None:
        random.seed(given.seed)
        with world(given.folder) as connection:
            known = {id for (id,) in connection.execute("select id from accepted")}
        ids = [f"o-{n}" for n in range(ORDERS) if f"o-{n}" not in known]
        print(asyncio.run(globals()[f"node_{given.node}"](given.folder, ids, given.last)), flush=True)
        return
    columns = ("killed", "repeated", "lost", "doubled", "left behind", "hanging", "asked")
    print("library", *columns, sep=" | ", flush=True)
    for library in given.libraries:
        with ThreadPoolExecutor(given.parallel) as pool:
            found = sum(pool.map(lambda seed, library=library: trial(library, seed), range(given.kills)), Counter())
        print(library, *(found[name] for name in columns), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
