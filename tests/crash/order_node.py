"""A process of a service with ordered queues, killed by its test.

Commands, a line each, answered by a line: `publish FROM TO` (messages n of key n % KEYS), `replay`, `discard`. Queue
`order.skip` fails at random and goes on; queue `order.hold` fails step 1 of each key until the file `mended` is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path

import msgspec

from spoolproof import Service, Transaction, event
from spoolproof.dead_letters import replay as verbs
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState

KEYS = 12
MENDED = Path("mended")
service = Service("order")


@event("order.step")
class Step(msgspec.Struct):
    key: str
    n: int


@event("order.held")
class HeldStep(msgspec.Struct):
    key: str
    n: int


async def note(tx: Transaction, queue: str, key: str, n: int) -> None:
    await tx.execute("insert into effect (queue, of, n) values ($1, $2, $3)", queue, key, n)


@service.on(Step, queue="order.skip", ordered=True, attempts=100, delays=(0.02, 0.2))
async def step(step: Step, tx: Transaction) -> None:
    await note(tx, "skip", step.key, step.n)
    await asyncio.sleep(random.random() * 0.005)
    if random.random() < 0.2:
        raise ValueError("it fails now and then")


@service.on(HeldStep, queue="order.hold", ordered=True, on_key_failure="hold_key", attempts=1)
async def held(step: HeldStep, tx: Transaction) -> None:
    await note(tx, "hold", step.key, step.n)
    if step.n // KEYS == 1 and not MENDED.exists():
        raise ValueError("it is broken")


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main() -> None:
    await service.start(only=os.environ["NODE_ROLES"].split(","))
    try:
        is_sqlite = service.runtime.store.name.startswith("sqlite")
        kind = "integer primary key" if is_sqlite else "bigint generated always as identity primary key"
        async with service.transaction() as tx:
            await tx.execute(f"create table if not exists effect (id {kind}, queue text, of text, n integer)")
        say({"ready": True})
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := (await commands.readline()).decode().split():
            say(await do(*line))
    finally:
        await service.stop()


async def do(verb: str, *numbers: str) -> object:
    store = service.runtime.store
    if verb in ("step", "held"):
        kind = Step if verb == "step" else HeldStep
        for n in range(*map(int, numbers)):
            await service.publish(kind(f"key-{n % KEYS}", n), key=f"key-{n % KEYS}")
    elif verb == "effects":
        async with service.transaction() as tx:
            return [list(row.values()) for row in await tx.fetch("select queue, of, n from effect order by id")]
    elif verb == "letters":
        counts = await store.dead_letters.counts()
        return {str(state): count for state, count in counts.items()}
    else:
        for letter in await store.dead_letters.search(DeadLetterFilter(state=DeadLetterState.OPEN)):
            await verbs.replay(store, letter.id, actor="test", reason="mended")
    return {}


asyncio.run(main())
