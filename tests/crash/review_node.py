"""The process the review and reconciliation crash tests kill: it asks, parks, decides and reconciles, each once.

Whatever an earlier process of it did is left as it is. Prints one JSON document and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from spoolproof import Delivery, Park, Service, Transaction, limits
from spoolproof.ports.reconciliations import Difference
from spoolproof.review.actions import Decision

limits.RECONCILIATION_LOOK_SECONDS = 0.05
limits.RECONCILIATION_STALE_SECONDS = 0.5
limits.RECONCILIATION_PAGE = 10
THINGS = [f"t-{n:02d}" for n in range(30)]
DECIDES = Path("decides")

service = Service("crash")


@service.on("order.placed", queue="crash.place")
async def place(order: dict[str, Any], delivery: Delivery, tx: Transaction) -> Park | None:
    await tx.execute("insert into effect values ($1)", f"placed {order['id']}")
    return None if DECIDES.exists() else Park("May it be placed?")


@service.on("order.approved", queue="crash.approved")
async def approved(order: dict[str, Any], tx: Transaction) -> None:
    await tx.execute("insert into effect values ($1)", f"told {order['id']}")


@service.reviews.action("order.flagged", "approve")
async def approve(decision: Decision, tx: Transaction) -> None:
    await tx.execute("insert into effect values ($1)", f"approved {decision.item.subject}")
    await tx.publish({"id": decision.item.subject}, type="order.approved")


things = service.reconciliation.reconciler("things", every="1h", transitions={"old": {"new"}})


@things.candidates
async def candidates(after: str | None) -> AsyncIterator[str]:
    for key in THINGS:
        if after is None or key > after:
            yield key


@things.ours
async def ours(keys: Sequence[str]) -> AsyncIterator[tuple[str, str]]:
    async with service.transaction() as tx:
        rows = await tx.fetch("select id, state from thing order by id")
    for row in rows:
        if row["id"] in keys:
            yield row["id"], row["state"]


@things.theirs
async def theirs(keys: Sequence[str]) -> AsyncIterator[tuple[str, str]]:
    for key in keys:
        yield key, "new"


@things.repair
async def repair(found: Difference, tx: Transaction) -> bool:
    sql = "update thing set state = $1, repairs = repairs + 1 where id = $2 and state = $3"
    return bool(await tx.execute(sql, found.to, found.key, found.ours))


@service.reconciliation.check("stock")
async def check(key: str) -> bool:
    async with service.transaction() as tx:
        await tx.execute("insert into effect values ($1)", f"checked {key}")
    return True


@service.on_start
async def tables() -> None:
    async with service.transaction() as tx:
        await tx.execute("create table if not exists effect (text text not null)")
        await tx.execute("create table if not exists thing (id text primary key, state text, repairs int default 0)")
        for key in THINGS:
            await tx.execute("insert into thing (id, state) values ($1, 'old') on conflict do nothing", key)


async def effects() -> list[str]:
    async with service.transaction() as tx:
        return [row["text"] for row in await tx.fetch("select text from effect order by text")]


async def items(state: str) -> list[dict[str, Any]]:
    return list((await service.reviews.ls(state=state))["items"])


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def decide() -> None:
    known = {item["kind"]: item for item in [*await items("resolved"), *await items("open")]}
    if "order.flagged" not in known:
        await service.reviews.open("order.flagged", "o-1", "May it go?")
    await service.publish({"id": "o-1"}, type="order.placed", id="message-1")
    if not DECIDES.exists():
        await until(lambda: _has_parked())
        DECIDES.touch()
    for item in await items("open"):
        action = "replay" if item["kind"] == "message" else "approve"
        await service.reviews.resolve(item["id"], action, actor="ann", reason="looked at it")
    await until(lambda: _has({"approved o-1", "placed o-1", "told o-1"}))


async def _has_parked() -> bool:
    return any(item["kind"] == "message" for item in [*await items("open"), *await items("resolved")])


async def _has(wanted: set[str]) -> bool:
    return wanted <= set(await effects())


async def reconcile() -> None:
    await until(_is_over)


async def mark() -> None:
    if not await effects():
        await service.reconciliation.mark("stock", "o-1")
    await until(_is_settled)


async def _is_settled() -> bool:
    return not (await service.reconciliation.ls())["marks"]


async def _is_over() -> bool:
    runs = (await service.reconciliation.ls())["runs"]
    return any(run["finished_at"] is not None for run in runs)


async def main(what: str) -> None:
    await service.start()
    await {"decide": decide, "reconcile": reconcile, "mark": mark}[what]()
    async with service.transaction() as tx:
        rows = await tx.fetch("select state, repairs from thing order by id")
    runs = (await service.reconciliation.ls())["runs"]
    names = ("seen", "seen_ours", "seen_theirs", "equal", "repaired", "reviewed", "skipped")
    report = {
        "effects": await effects(),
        "items": sorted((item["kind"], item["state"]) for item in [*await items("open"), *await items("resolved")]),
        "verify": await service.reviews.verify(),
        "things": sorted({(row["state"], row["repairs"]) for row in rows}),
        "runs": [{name: run[name] for name in names} for run in runs],
    }
    await service.drain(1.0)
    await service.stop()
    sys.stdout.write(json.dumps(report) + "\n")


os.environ.setdefault("SPOOLPROOF_LEASE_SECONDS", "1")
asyncio.run(main(sys.argv[1]))
