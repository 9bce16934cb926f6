"""A service whose handler calls the world, and is killed after the first call. Ends by itself, with 0, when the message
has come to an end: argv: on_unknown."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from spoolproof import Delivery, Service, event
from spoolproof.ports.dead_letters import DeadLetterFilter


@event("claim.job")
class Job(msgspec.Struct):
    n: int


service = Service("claims")
ended = asyncio.Event()


@service.on(Job, queue="claims.jobs", on_unknown=sys.argv[1])
async def work(job: Job, delivery: Delivery) -> None:
    with Path("calls").open("a") as log:
        log.write(delivery.idempotency_key + "\n")
    if len(Path("calls").read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ended.set()


async def main() -> None:
    await service.start()
    if not Path("published").exists():
        Path("published").touch()
        await service.publish(Job(1))
    letters = []
    while not letters and not ended.is_set():
        letters = list(await service.runtime.store.dead_letters.search(DeadLetterFilter()))
        await asyncio.sleep(0.05)
    await service.drain(5)
    await service.stop()
    report = {"effects": Path("calls").read_text().split(), "reasons": [one.reason for one in letters]}
    Path("report.json").write_bytes(msgspec.json.encode(report))


asyncio.run(main())
