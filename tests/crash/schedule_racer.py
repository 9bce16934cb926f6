"""A process that promotes what is due, or cancels it, as fast as it can: it says `ready`, waits for a line, answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from spoolproof.backoff import system_random
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.schedule import Schedule
from spoolproof.ports.store import Store
from spoolproof.settings import Settings
from spoolproof.wiring import build_store


@asynccontextmanager
async def opened(url: str, service: str) -> AsyncIterator[Store]:
    """Open a store with its schema, as that service."""
    clock = SystemClock()
    supervisor = Supervisor(clock, system_random())
    settings = Settings(store=url)  # type: ignore[arg-type]
    store = build_store(settings, clock=clock, ids=Ids(clock), spawn=supervisor.spawn)
    try:
        await store.start()
        await store.migrations.apply()
        await store.services.claim(service)
        yield store
    finally:
        await store.stop()
        await supervisor.stop()


async def main(url: str, verb: str, *ids: str) -> None:
    async with opened(url, "shop") as store:
        schedule = store.port(Schedule)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        said: list[object] = []
        if verb == "promote":
            moved = 0
            while await schedule.count("shop"):
                moved += (await schedule.promote("shop", 3)).rows
            said.append(moved)
        else:
            for id in Path(ids[0]).read_text().split():
                if await schedule.cancel(id, "shop"):
                    said.append(id)
        sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
