"""A service that publishes as fast as it is answered: `spool_node.py FIRST [LAST]`. Each accepted number is a line.

Settings come from the environment. Every third event has no key. What is delivered is a line of `delivered`. Without
LAST it goes on until somebody ends it; with
LAST it publishes up to it, and says when nothing waits in spool and outbox.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from spoolproof import Service, SpoolproofError
from spoolproof.runtime import Runtime
from spoolproof.spool.part import SpoolPart
from spoolproof.spool.spool import Spool

service = Service("shop")
Spool.patience_seconds = float(os.environ.get("NODE_PATIENCE", "0.1"))


@service.on("order", dedupe="none", concurrency=1)
async def order(payload: dict[str, object]) -> None:
    with Path("delivered").open("a") as log:
        log.write(f"{payload['key']} {payload['n']}\n")


async def main(first: int, last: int | None) -> None:
    await service.start()
    say("started")
    n = first
    while last is None or n <= last:
        key = None if n % 3 == 0 else f"k{n % 3}"
        try:
            receipt = await service.publish({"n": n, "key": key}, type="order", key=key, id=f"order-{n}")
        except SpoolproofError as error:
            say(f"refused {type(error).__name__} {error}")
            await asyncio.sleep(0.05)
            continue
        say(f"{receipt.place} {n}")
        n += 1
    while not await is_empty(service.runtime):
        await asyncio.sleep(0.05)
    say("empty")
    await asyncio.Event().wait()


async def is_empty(runtime: Runtime) -> bool:
    part = runtime.part(SpoolPart)
    folder = part._spools.folder
    if folder is None or list(folder.glob("*.db")) or not runtime.publisher.is_store_reached:
        return False
    return not (await runtime.store.outbox.backlog()).rows


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
