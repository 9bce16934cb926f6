"""P11: a saga of three steps, 50 in flight, against the same workflow of DBOS, on SQLite and on PostgreSQL.

Each of 50 callers starts one, waits for its result and starts the next. The steps do nothing but return, so what is
timed is the journal: that every step is durable before the next one is called. Timed: from the first start to the last
result. The peer runs in the same process shape: one event loop, async steps, its own defaults.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.services import service_on
from benchmarks.stage import Stage, check
from spoolproof.saga import Flow, Step

CALLERS = 50
WARM = 50
STEPS = 3
FULL = {"spoolproof-sqlite": 6_000, "spoolproof-postgresql": 6_000, "dbos-sqlite": 600, "dbos-postgresql": 800}


def measure(stage: Stage, contender: str) -> Sample:
    """Run that many, in a fresh file or database."""
    count = stage.scale(FULL[contender], FULL[contender] // 5)
    with stage.directory() as directory:
        if contender.endswith("sqlite"):
            url = f"sqlite:///{directory / 'store.db'}"
        else:
            url = stage.postgres.create_database(f"p11_{stage.serial()}")
        figures = stage.turn("p11_sagas", contender.partition("-")[0], url=url, count=count)
    check(figures["done"] == count, f"{figures['done']:.0f} are done, not {count}")
    check(figures["steps"] == STEPS * (count + WARM), f"{figures['steps']:.0f} steps ran for {count + WARM} workflows")
    return {"rate": count / figures["seconds"]}


async def turn_spoolproof(url: str, count: int) -> dict[str, float]:
    """A saga of three keyed steps, in one process that starts and runs them."""
    service = service_on(store=url, broker="memory://")
    order: Any = service.saga("order", version=1)
    ran = 0

    @order.step(why="it does nothing")
    async def one(step: Step, n: int) -> int:
        nonlocal ran
        ran += 1
        return n

    @order.step(why="it does nothing")
    async def two(step: Step, n: int, before: int) -> int:
        nonlocal ran
        ran += 1
        return n + before

    @order.step(why="it does nothing")
    async def three(step: Step, n: int, before: int) -> int:
        nonlocal ran
        ran += 1
        return n + before

    @order.flow
    async def place(saga: Flow, n: int) -> int:
        result: int = await saga.do(three, await saga.do(two, await saga.do(one)))
        return result

    async def call(n: int) -> bool:
        started = await order.start(n)
        return bool(await started.result() == 3 * n)

    await service.start()
    figures = await _timed(call, count)
    await service.drain(5.0)
    await service.stop()
    return {**figures, "steps": ran}


async def turn_dbos(url: str, count: int) -> dict[str, float]:
    """The same as a DBOS workflow with three steps."""
    from dbos import DBOS

    ran = 0

    @DBOS.step()
    async def one(n: int) -> int:
        nonlocal ran
        ran += 1
        return n

    @DBOS.step()
    async def two(n: int, before: int) -> int:
        nonlocal ran
        ran += 1
        return n + before

    @DBOS.step()
    async def three(n: int, before: int) -> int:
        nonlocal ran
        ran += 1
        return n + before

    @DBOS.workflow()
    async def place(n: int) -> int:
        return await three(n, await two(n, await one(n)))

    async def call(n: int) -> bool:
        handle = await DBOS.start_workflow_async(place, n)
        return bool(await handle.get_result() == 3 * n)

    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    figures = await _timed(call, count)
    await asyncio.to_thread(DBOS.destroy)
    return {**figures, "steps": ran}


async def _timed(call: Any, count: int) -> dict[str, float]:
    async def caller(numbers: Any) -> int:
        return sum([await call(n) for n in numbers])

    async def all_of(least: int, number: int) -> int:
        numbers = iter(range(least, least + number))
        return sum(await asyncio.gather(*(caller(numbers) for _ in range(CALLERS))))

    await all_of(0, WARM)
    started = time.perf_counter()
    done = await all_of(1_000_000, count)
    return {"seconds": time.perf_counter() - started, "done": done}


def _comparison(store: str, label: str) -> Comparison:
    return Comparison(
        ours=f"spoolproof-{store}",
        peer=f"dbos-{store}",
        label=f"DBOS on {label}",
        metric="rate",
        unit="sagas/s",
        target=Target(10),
    )


BENCHMARK = Benchmark(
    id="P11",
    title=f"a saga of {STEPS} steps, {CALLERS} in flight, started and awaited in one process",
    contenders={
        "spoolproof-sqlite": "order.start(n), then result(), on SQLite",
        "dbos-sqlite": "DBOS.start_workflow_async, then get_result(), on SQLite",
        "spoolproof-postgresql": "the same on PostgreSQL",
        "dbos-postgresql": "the same on PostgreSQL",
    },
    measure=measure,
    comparisons=(_comparison("sqlite", "SQLite"), _comparison("postgresql", "PostgreSQL")),
    switches={
        "SQLite, ours": "journal_mode=WAL, synchronous=FULL",
        "SQLite, DBOS": "as DBOS opens it: rollback journal, synchronous=FULL",
        "PostgreSQL": "fsync=on, synchronous_commit=on on both sides; a private server, a fresh database per turn",
        "steps": "async, return a number; ours keyed, with the intent durable before the call",
        "check": "every result is right, and every step was called once",
        "event loop": "uvloop; logging off",
    },
)
