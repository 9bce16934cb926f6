"""The process the crash tests of sagas kill: it starts orders, unless they were started before, and runs them.

`saga_node.py ORDERS [decide]`: prints `ready`, prints `done` once no order moves any more, and ends with its standard
input. With `decide` it answers what they ask first.
What its steps do to other systems is in `world.db`, which outlives it and does each thing once for a key.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoolproof import Service, Transaction, limits
from spoolproof.ports.sagas import SagaState
from spoolproof.saga import Flow, Landed, NotLanded, Refused, Step

limits.SAGA_POLL_SECONDS = limits.SAGA_SWEEP_SECONDS = 0.1
limits.SAGA_CRASH_DELAYS_SECONDS = (0.0, 0.1, 0.1, 0.1, 0.1)
limits.SAGA_CRASHES_MAX = 50  # eight deaths over one saga are this suite's doing, and no reason to ask a person
limits.SAGA_SETTLE_SECONDS = (0.3, 0.6)
QUICK = (0.05, 0.2)
WORLD = """
create table if not exists effect (key text primary key, name text, id text);
create table if not exists call (name text, id text)
"""


@dataclass
class Order:
    """kind: `good`, `refused` by its last step, `asked` about at its end, or `buggy` there."""

    id: str
    kind: str


def world() -> Any:
    connection = sqlite3.connect(Path("world.db"), isolation_level=None, timeout=20)
    connection.execute("pragma journal_mode=wal")
    connection.executescript(WORLD)
    return closing(connection)


def effect(name: str, step: Step, order: Order) -> None:
    with world() as connection:
        connection.execute("insert into call values (?, ?)", (name, order.id))
        connection.execute("insert or ignore into effect values (?, ?, ?)", (step.key, name, order.id))


def has_landed(step: Step) -> bool:
    with world() as connection:
        return connection.execute("select 1 from effect where key = ?", (step.forward_key,)).fetchone() is not None


service = Service("crash")
order = service.saga("order", version=1)


@order.step(effect="tx", retry_seconds=QUICK)
async def reserve(step: Step, o: Order, tx: Transaction) -> str:
    await tx.execute("insert into reserved values ($1, 1)", o.id)
    await tx.publish({"id": o.id}, type="order.reserved", id=f"reserved-{o.id}")
    return f"r-{o.id}"


@reserve.compensate
async def release(step: Step, o: Order, reservation: str | None, tx: Transaction) -> None:
    assert 1 == await tx.execute("update reserved set n = n - 1 where id = $1", o.id)


@order.step(retry_seconds=QUICK, tombstone=True)
async def charge(step: Step, o: Order, reservation: str) -> int:
    effect("charge", step, o)
    return 100


@charge.compensate
async def refund(step: Step, o: Order, cents: int | None) -> None:
    if has_landed(step):
        effect("refund", step, o)


@order.step(effect="once", timeout=5.0, retry_seconds=QUICK)
async def print_label(step: Step, o: Order) -> str:
    effect("label", step, o)
    return f"l-{o.id}"


@print_label.probe
async def was_printed(step: Step, o: Order) -> object:
    return Landed(f"l-{o.id}") if has_landed(step) else NotLanded()


@print_label.compensate
async def void(step: Step, o: Order, label: str | None) -> None:
    if has_landed(step):
        effect("void", step, o)


@order.step(pivot=True, retry_seconds=QUICK)
async def ship(step: Step, o: Order) -> None:
    if o.kind == "refused":
        raise Refused("nobody drives there")
    effect("ship", step, o)


@order.flow
async def place(saga: Flow, o: Order) -> str:
    reservation = await saga.do(reserve)
    await saga.gather(saga.do(charge, reservation), saga.do(print_label))
    await saga.do(ship)
    if o.kind == "asked":
        await saga.review("ok")
    if o.kind == "buggy":
        raise KeyError("a bug")
    return o.id


async def rest() -> None:
    """Wait until every saga is over, or waits for a person."""
    moving = {SagaState.RUNNING, SagaState.COMPENSATING, SagaState.SETTLING}
    waiting = {item["subject"] for item in (await service.reviews.ls())["items"]}
    while any(
        one.state in moving and (one.waiting_for != "review:ok" or f"order/ok/{one.key}" not in waiting)
        for one in await service.saga.search(limit=1000)
    ):
        await asyncio.sleep(0.05)
        waiting = {item["subject"] for item in (await service.reviews.ls())["items"]}


async def main(orders: int) -> None:
    await service.start()
    async with service.transaction() as tx:
        await tx.execute("create table if not exists reserved (id text primary key, n integer not null)")
    async with service.transaction() as tx:  # one: a process that is frozen in a step holds no row of a start
        for n in range(orders):
            kind = "buggy" if (n, orders) == (3, 4) else ("good", "refused", "asked")[n % 3]
            await service.saga.start("order", Order(f"o-{n}", kind), id=f"o-{n}", transaction=tx)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await rest()
    while "decide" in sys.argv and (items := (await service.reviews.ls())["items"]):
        for item in items:
            action = "approve" if item["kind"] == "saga.approval" else "abandon"
            await service.reviews.resolve(item["id"], action, actor="ann", reason="looked")
        await rest()
    sys.stdout.write("done\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await service.drain(5.0)
    await service.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
