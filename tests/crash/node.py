"""The process the crash suite kills: one small service that uses every part of the walking skeleton.

It reads commands as JSON lines on standard input and answers each with a JSON line on standard output; an answer is a
promise the parent writes into its ledger. Settings come from the environment, `NODE_REPAIRED` names a file whose
existence lets poisoned orders succeed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import msgspec

from spoolproof import Delivery, Service, Transaction, event, limits
from spoolproof.dead_letters.replay import replay
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState

# data, not behaviour: six minutes of patience with a missing queue would be six minutes a case
limits.UNROUTABLE_DELAYS_SECONDS = (0.05, 0.05, 0.05, 0.05, 0.05)  # type: ignore[assignment]
# the default rests a minute between prunes; a case lasts seconds
limits.PRUNE_SECONDS = 0.2
limits.SCHEDULE_SECONDS = 0.1
# a frozen process keeps its claims of the embedded broker this long
limits.CLAIM_SECONDS = 3.0

NAMESPACE = UUID("4a0c0b58-5f0e-4a0e-9d53-0a1f5c0b7a11")
QUIET_REASON = "crash suite"


@event("crash.order")
class Order(msgspec.Struct):
    n: int


@event("crash.booked")
class Booked(msgspec.Struct):
    n: int


@event("crash.nowhere")
class Nowhere(msgspec.Struct):
    n: int


service = Service("crash")


@service.on(Order, queue="crash.book", attempts=3, delays=(1,), timeout=20)
async def book(order: Order, delivery: Delivery, tx: Transaction) -> None:
    if order.n % 7 == 3 and delivery.attempt < 3 and not delivery.is_replay:
        raise RuntimeError(f"order {order.n} fails twice")
    if order.n % 11 == 5 and not Path(os.environ["NODE_REPAIRED"]).exists():
        raise RuntimeError(f"order {order.n} is poisoned")
    await tx.execute("insert into effect (queue, n) values ($1, $2)", "book", order.n)
    await tx.publish(Booked(order.n), key=f"key-{order.n % 5}")


@service.on(Booked, queue="crash.confirm", batch=20, batch_seconds=0.1, concurrency=2)
async def confirm(booked: list[Booked], tx: Transaction) -> None:
    for one in booked:
        await tx.execute("insert into effect (queue, n) values ($1, $2)", "confirm", one.n)


@service.every(1)
async def tick(delivery: Delivery, tx: Transaction) -> None:
    await tx.execute("insert into tick (due) values ($1)", delivery.message.id)


def message_id(kind: str, n: int) -> str:
    return str(uuid5(NAMESPACE, f"{kind}-{n}"))


async def place(n: int) -> dict[str, Any]:
    async with service.transaction() as tx:
        known = await tx.fetch("select n from placed where n = $1", n)
        if not known:
            await tx.execute("insert into placed (n) values ($1)", n)
            later = {"delay": 0.1} if n % 6 == 0 else {}
            await tx.publish(Order(n), key=f"key-{n % 5}", id=message_id("order", n), **later)
    return {"accepted": n}


async def place_nowhere(n: int) -> dict[str, Any]:
    await service.publish(Nowhere(n), id=message_id("nowhere", n))
    return {"accepted": n}


async def place_dead(n: int) -> dict[str, Any]:
    await service.publish(Order(n), id=message_id("dead", n), destination="queue:crash.book.dead")
    return {"accepted": n}


async def replay_all() -> dict[str, Any]:
    store = service.runtime.store
    who = {"actor": "crash suite", "reason": "the bank is repaired"}
    found = await store.dead_letters.search(DeadLetterFilter(state=DeadLetterState.OPEN, reason="handler"))
    for record in found[:1]:
        await replay(store, record.id, **who)
    if found[1:]:
        await service.dead_letters.start_bulk("replay", **who, ids=tuple(record.id for record in found[1:]))
    return {"replayed": len(found)}


async def report() -> dict[str, Any]:
    store = service.runtime.store
    async with service.transaction() as tx:
        effects = [(row["queue"], row["n"]) for row in await tx.fetch("select queue, n from effect")]
        ticks = [row["due"] for row in await tx.fetch("select due from tick order by due")]
        placed = [row["n"] for row in await tx.fetch("select n from placed")]
    letters = await store.dead_letters.search(DeadLetterFilter(limit=1000))
    return {
        "effects": effects,
        "placed": placed,
        "ticks": ticks,
        "outbox": (await store.outbox.backlog()).rows,
        "dead_letters": [
            [record.message.id, record.consumer, record.reason, record.state.value, len(record.attempts)]
            for record in letters
        ],
    }


async def serve() -> None:
    await service.start()
    async with service.transaction() as tx:
        await tx.execute("create table if not exists placed (n integer not null)")
        await tx.execute("create table if not exists tick (due text primary key)")
        await tx.execute("create table if not exists effect (queue text not null, n integer not null)")
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    reader = asyncio.StreamReader(limit=2**20)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    commands = asyncio.ensure_future(obey(reader))
    answer({"ready": os.getpid()})
    await ended.wait()
    await service.drain(5.0)
    await service.stop()
    commands.cancel()
    transport.close()


async def obey(reader: asyncio.StreamReader) -> None:
    does: dict[str, Any] = {"place": place, "nowhere": place_nowhere, "dead": place_dead}
    while line := await reader.readline():
        command = json.loads(line)
        try:
            if command["do"] in does:
                result = await does[command["do"]](command["n"])
            else:
                result = await {"replay": replay_all, "report": report}[command["do"]]()
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        answer(result)


def answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    import logging

    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve())
