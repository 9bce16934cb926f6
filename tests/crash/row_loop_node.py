"""A service one of whose rows ends the process that publishes it. Ends by itself, with 0, when every row has come to an
end; what it publishes is there before, so that nothing tells a row from its neighbours."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from spoolproof import Service, Transaction, event
from spoolproof.ports.dead_letters import DeadLetterFilter

ROWS = 60
POISON = 10


@event("loop.job")
class Job(msgspec.Struct):
    n: int


service = Service("loop")


@service.on(Job, queue="loop.jobs")
async def work(job: Job, tx: Transaction) -> None:
    await tx.execute("insert into effect (n) values ($1)", job.n)


def kills(submit: Callable[..., None]) -> Callable[..., None]:
    def killing(outgoing: Any, token: object, sink: Any) -> None:
        if outgoing.message.body == msgspec.json.encode(Job(POISON)):
            with Path("killed").open("a") as log:
                log.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        submit(outgoing, token, sink)

    return killing


async def main() -> None:
    broker: Any = None
    await service.start()
    broker = service.runtime.broker.inner
    broker.submit = kills(broker.submit)
    async with service.transaction() as tx:
        await tx.execute("create table if not exists effect (n integer)")
        await tx.execute("create table if not exists published (n integer primary key)")
        if not await tx.fetch("select n from published"):
            for n in range(ROWS):
                await tx.execute("insert into published (n) values ($1)", n)
                await tx.publish(Job(n))
    while True:
        async with service.transaction() as tx:
            effects = sorted(row["n"] for row in await tx.fetch("select n from effect"))
        letters = await service.runtime.store.dead_letters.search(DeadLetterFilter())
        if letters and len(effects) >= ROWS - 1:
            report = {"effects": effects, "reasons": [one.reason for one in letters]}
            Path("report.json").write_bytes(msgspec.json.encode(report))
            break
        await asyncio.sleep(0.05)
    await service.drain(5)
    await service.stop()


asyncio.run(main())
