"""The process that dies in the middle of a bulk: 500 dead letters, replayed by one command whose process is gone."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import msgspec

from spoolproof import Service, Transaction, event, limits
from spoolproof.ports.bulk import Bulks
from spoolproof.ports.dead_letters import DeadLetterDetails
from spoolproof.ports.triage import Triage
from spoolproof.testing.conformance._messages import make_dead_letter, make_message

limits.BULK_REST_SECONDS = 0.05  # data, not behaviour: ten seconds of patience would be ten seconds a case
COUNT = 500


@event("crash.order")
class Order(msgspec.Struct):
    n: int


service = Service("crash")


@service.on(Order, queue="book", attempts=1)
async def book(order: Order, tx: Transaction) -> None:
    await tx.execute("insert into effect (n) values ($1)", order.n)


async def main() -> None:
    await service.start()
    store = service.runtime.store
    async with service.transaction() as tx:
        await tx.execute("create table if not exists effect (n integer not null)")
    if not await store.port(Bulks).all(1):
        messages = [make_message("crash.order", body=b'{"n":%d}' % n) for n in range(COUNT)]
        letters = [make_dead_letter(message, consumer="book", destination="queue:book") for message in messages]
        await store.port(Triage).restore([DeadLetterDetails(letter) for letter in letters], "test", "made")
        await service.dead_letters.start_bulk("replay", actor="ann", reason="bank is back")
    (bulk,) = await store.port(Bulks).all(2)
    while bulk.ended_at is None or (await service.dead_letters.bulk(bulk.id))["outcomes"] != {"resolved": COUNT}:
        await asyncio.sleep(0.05)
        (bulk,) = await store.port(Bulks).all(2)
    async with service.transaction() as tx:
        effects = [row["n"] for row in await tx.fetch("select n from effect order by n")]
        table = "spoolproof_dead_letter_audit" if "sqlite" in store.name else "spoolproof.dead_letter_audit"
        (replayed,) = await tx.fetch(f"select count(*) as n from {table} where verb = 'replayed'")
    report = {"effects": effects, "replayed": replayed["n"], "bulk": [bulk.state, bulk.total, bulk.moved, bulk.skipped]}
    Path("report.json").write_text(json.dumps(report))
    await service.drain(5.0)
    await service.stop()


if __name__ == "__main__":
    import logging

    logging.basicConfig(level="INFO", stream=sys.stderr)
    asyncio.run(main())
