"""A service one of whose messages ends its process. Ends by itself, with 0, when every message has come to an end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from spoolproof import Service, Transaction, event
from spoolproof.ports.dead_letters import DeadLetterFilter

KILLERS = {"exit": lambda: os._exit(7), "kill": lambda: os.kill(os.getpid(), signal.SIGKILL)}
INNOCENT = 8


@event("loop.job")
class Job(msgspec.Struct):
    n: int


service = Service("loop")


@service.on(Job, queue="loop.jobs", concurrency=4)
async def work(job: Job, tx: Transaction) -> None:
    await tx.execute("insert into effect (n) values ($1)", job.n)
    if job.n == 0:
        with Path("killed").open("a") as log:
            log.write("x")
        await asyncio.sleep(0.05)  # so that neighbours are under way
        KILLERS[sys.argv[1]]()


async def main() -> None:
    await service.start()
    async with service.transaction() as tx:
        await tx.execute("create table if not exists effect (n integer)")
        await tx.execute("create table if not exists published (n integer primary key)")
        if not await tx.fetch("select n from published"):
            for n in range(INNOCENT + 1):
                await tx.execute("insert into published (n) values ($1)", n)
                await tx.publish(Job(n))
    while True:
        async with service.transaction() as tx:
            effects = sorted(row["n"] for row in await tx.fetch("select n from effect"))
        letters = await service.runtime.store.dead_letters.search(DeadLetterFilter())
        if letters and len(effects) >= INNOCENT:
            report = {"effects": effects, "reasons": [one.reason for one in letters]}
            Path("report.json").write_bytes(msgspec.json.encode(report))
            break
        await asyncio.sleep(0.05)
    await service.drain(5)
    await service.stop()


asyncio.run(main())
