"""The process the batch crash tests kill: it submits one batch whose items end in every way, and waits for its end.

An item that runs says so in a file before it does anything else. Whatever an earlier process did is left as it is; one
whose `replays` is asked for sends what has failed again, mended. Prints one JSON document and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from spoolproof import DeadLetter, RetryLater, Service, Transaction, limits
from spoolproof.consumer.jobs import BatchFinished, JobContext, Problem

limits.BATCH_SWEEP_SECONDS = 0.5
limits.BATCH_LOST_SECONDS = 2.0
HOW = ["well", "never", "well", "invalid", "unknown", "again", "never", "well", "well"]
EFFECT, REPLAYS = sys.argv[1], "replays" in sys.argv[2:]

service = Service("crash")


@service.batches.job(
    "mixed",
    concurrency=2,
    effect=EFFECT,
    validate=lambda item: [Problem("is no way", "how")] if item["how"] == "invalid" else [],
    item_id=lambda item: f"{item['how']}-{item['n']}",
)
async def mixed(item: dict[str, Any], job: JobContext) -> str:
    with open("ran", "a") as ran:
        ran.write(f"{job.item_id} {job.key}\n")
        ran.flush()
        os.fsync(ran.fileno())
    if item["how"] == "never" and not REPLAYS:
        raise DeadLetter("cannot be done")
    if item["how"] == "unknown" and EFFECT == "once":
        raise ConnectionResetError("cut off")
    if item["how"] == "again" and job.attempt == 1:
        raise RetryLater(1)
    return job.item_id


@service.on(BatchFinished)
async def finished(batch: BatchFinished, tx: Transaction) -> None:
    total = batch.succeeded + batch.failed + batch.invalid + batch.unknown + batch.pending
    await tx.execute("insert into finished values ($1, $2)", batch.state, total)


@service.on_start
async def tables() -> None:
    async with service.transaction() as tx:
        await tx.execute("create table if not exists finished (state text, total int)")


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(40):
        while not await condition():
            await asyncio.sleep(0.02)


async def ends() -> list[list[Any]]:
    async with service.transaction() as tx:
        return [list(row.values()) for row in await tx.fetch("select state, total from finished")]


async def main() -> None:
    await service.start()
    receipt = await service.batches.submit("mixed", [{"n": n, "how": how} for n, how in enumerate(HOW)], id="b")

    async def is_over() -> bool:
        report = await service.batches.get(receipt.batch_id)
        is_finished = report.state == "finished" and len(await ends()) >= 1
        if REPLAYS and is_finished and report.failed:
            await service.batches.replay(receipt.batch_id, actor="ann", reason="mended")
            return False
        return is_finished

    await until(is_over)
    report = await service.batches.get(receipt.batch_id)
    document = {
        "counts": {state.value: count for state, count in report.counts.items()},
        "states": {item.id: item.state.value for item in report.items},
        "ends": await ends(),
        "open": len((await service.dead_letters.ls())["dead_letters"]),
        "asked": sorted(item["id"] for item in (await service.reviews.ls())["items"]),
        "reviews": sorted(item.review_id for item in report.unknown),
    }
    await service.drain(1.0)
    await service.stop()
    sys.stdout.write(json.dumps(document) + "\n")


os.environ.setdefault("SPOOLPROOF_LEASE_SECONDS", "1")
asyncio.run(main())
