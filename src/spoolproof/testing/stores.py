"""A store on a private server, for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spoolproof.backoff import system_random
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.stores.postgres import PostgresStore
from spoolproof.wiring import PORTS


@asynccontextmanager
async def postgres_store(
    url: str, *, outbox_rows_max: int = 10_000_000, listen: bool = True, migrate: bool = True
) -> AsyncIterator[PostgresStore]:
    """Start a store on `url`, with its schema unless `migrate` is False; stopped and without tasks after the block."""
    clock = SystemClock()
    supervisor = Supervisor(clock, system_random())
    store = PostgresStore(
        url,
        clock=clock,
        ids=Ids(clock),
        outbox_rows_max=outbox_rows_max,
        listen=listen,
        spawn=supervisor.spawn,
        ports=PORTS,
    )
    try:
        await store.start()
        if migrate:
            await store.migrations.apply()
        yield store
    finally:
        await store.stop()
        await supervisor.stop()
