"""The store of the settings, opened for one command.

A command never makes a store by looking: a file that is not there is reported, not created. A store in memory belongs
to another process and cannot be reached at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from spoolproof.backoff import system_random
from spoolproof.cli.exits import Refused
from spoolproof.clock import SystemClock
from spoolproof.errors import SchemaOutdated, StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.store import Store
from spoolproof.settings import Settings, load_settings
from spoolproof.wiring import build_store, missing_store, store_adapter

T = TypeVar("T")


def with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    """Run `work` on the store of the settings, whose schema is the one this release needs.

    Raises SettingsError, MissingExtra, StoreUnavailable, SchemaOutdated, and Refused for a store in memory.
    """

    async def run() -> T:
        async with opened(load_settings()) as store:
            found = await store.migrations.found()
            if found != store.migrations.needed:
                raise SchemaOutdated(found, store.migrations.needed, store.name)
            return await work(store)

    return asyncio.run(run())


@asynccontextmanager
async def opened(settings: Settings, *, may_create: bool = False) -> AsyncIterator[Store]:
    """Open the store of some settings, whatever its schema. may_create: a missing SQLite file is made."""
    if not may_create and (path := missing_store(settings)):
        raise StoreUnavailable(
            f"there is no store at {path.resolve()}; start the service in its own directory, "
            "or name the file in SPOOLPROOF_STORE"
        )
    async with unopened(settings) as store:
        await store.start()
        yield store


@asynccontextmanager
async def unopened(settings: Settings) -> AsyncIterator[Store]:
    """Make the store of some settings without connecting to it, for what can be known of it so."""
    if store_adapter(settings).is_forgetful:
        raise Refused(
            f"SPOOLPROOF_STORE={settings.store_url} lives inside its service's process; no command can reach it",
            "set SPOOLPROOF_STORE to sqlite:///PATH or postgresql://…",
        )
    if not store_adapter(settings).has_inbox:
        raise Refused(
            "SPOOLPROOF_STORE=none: each process has a file of its own",
            "spoolproof spool status lists them; set SPOOLPROOF_STORE=sqlite:///PATH of one",
        )
    clock = SystemClock()
    supervisor = Supervisor(clock, system_random())
    store = build_store(settings, clock=clock, ids=Ids(clock), spawn=supervisor.spawn)
    try:
        yield store
    finally:
        await store.stop()
        await supervisor.stop()
