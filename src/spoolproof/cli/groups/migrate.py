"""`spoolproof migrate`: bring the store's schema to what this release needs, or show how."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from spoolproof.cli.exits import FAILED, Usage
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, say
from spoolproof.cli.store import opened, unopened
from spoolproof.errors import SchemaOutdated
from spoolproof.settings import load_settings
from spoolproof.wiring import missing_store

COMMAND = "migrate"


def migrate(
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the statements of the whole schema and do nothing.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 when a migration is due.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the schema of SPOOLPROOF_STORE up to date. Safe to repeat and to run from several places at once."""
    if sql and check:
        raise Usage("--sql and --check exclude each other", "choose one")
    if sql:
        text = asyncio.run(_statements())
        emit(COMMAND, {"sql": text}) if as_json else say(text)
        return
    outcome = asyncio.run(_bring_up_to_date(is_check=check))
    if as_json:
        emit(COMMAND, outcome)
    else:
        say(_sentence(outcome))
    if outcome["found"] != outcome["needed"] and not outcome["applied"]:
        raise typer.Exit(FAILED)


async def _statements() -> str:
    async with unopened(load_settings()) as store:
        return store.migrations.sql()


async def _bring_up_to_date(*, is_check: bool) -> dict[str, Any]:
    settings = load_settings()
    if is_check and missing_store(settings):
        async with unopened(settings) as store:
            return {"store": store.name, "found": 0, "needed": store.migrations.needed, "applied": []}
    async with opened(settings, may_create=not is_check) as store:
        found, needed = await store.migrations.found(), store.migrations.needed
        if found > needed:
            raise SchemaOutdated(found, needed, store.name)
        applied = [] if is_check else await store.migrations.apply()
        return {"store": store.name, "found": found, "needed": needed, "applied": applied}


def _sentence(outcome: dict[str, Any]) -> str:
    store, found, needed = outcome["store"], outcome["found"], outcome["needed"]
    if outcome["applied"]:
        return "\n".join([*(f"applied {step}" for step in outcome["applied"]), f"{store} is at version {needed}"])
    if found == needed:
        return f"{store} is at version {needed}; nothing to do"
    return f"{store} is at version {found}, this release needs {needed}; run: spoolproof migrate"


GROUP = Group("migrate", {"": migrate}, also=("migrations",), place=2)
