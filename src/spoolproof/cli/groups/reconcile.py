"""`spoolproof reconcile`: what runs found and did, and a run now."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.cli.target import load_service
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.ports.reconciliations import Reconciliations
from spoolproof.ports.store import Store
from spoolproof.reconciliation import desk
from spoolproof.reconciliation.part import find
from spoolproof.reconciliation.reconciler import Declared
from spoolproof.reconciliation.runner import Runner, Tools


def ls(
    reconciler: Annotated[str | None, typer.Option("--reconciler", help="Of this one alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many runs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest runs and their numbers, and how many marked keys wait for their check."""
    found = with_store(lambda store: desk.ls(store.port(Reconciliations), reconciler=reconciler, limit=limit))
    if as_json:
        emit("reconcile.ls", found)
        return
    names = ("id", "reconciler", "started_at", "phase", "seen", "equal", "repaired", "reviewed", "skipped")
    if found["runs"]:
        table([name.replace("_", " ") for name in names], [_cells(run, names) for run in found["runs"]])
    for one in found["marks"]:
        say(plain(f"{one['marks']} keys of {one['reconciler']} ({one['service']}) wait for their check"))
    if not found["runs"] and not found["marks"]:
        say("no runs, and no key waits")


def show(id: Annotated[str, typer.Argument(metavar="RUN")], as_json: AsJson = False) -> None:
    """Show one run: its numbers, and all that differed."""
    _tell("show", with_store(lambda store: desk.show(store.port(Reconciliations), id)), as_json)


def run(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    service: Annotated[str, typer.Option("--service", help="MODULE:SERVICE that declares it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a reconciler now, in this process, and show what it found."""
    loaded = load_service(service)
    reconciler = find(loaded.reconciliation.host.registrations.of(Declared), name)
    clock = SystemClock()
    ids = Ids(clock)

    async def work(store: Store) -> dict[str, Any]:
        await store.services.claim(loaded.name)
        units = UnitsOfWork(store, Publisher(store, source=loaded.name, clock=clock, ids=ids))
        runner = Runner(Tools(service=loaded.name, store=store, units=units, clock=clock, ids=ids))
        return desk.whole(await runner.run_to_end(reconciler, await runner.start(name, is_dry=dry_run)))

    _tell("run", with_store(work), as_json)


def _tell(verb: str, document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(f"reconcile.{verb}", {"run": document})
        return
    told = [name for name in document if name != "differences"]
    say("\n".join(f"{name:12} {value}" for name, value in zip(told, _cells(document, tuple(told)), strict=True)))
    if document["differences"]:
        names = ("key", "ours", "theirs", "to", "verdict", "became")
        table(names, [_cells(one, names) for one in document["differences"]])


def _cells(document: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [_cell(document[name]) for name in names]


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {why}" for why, count in value.items()) or "0"
    return plain(value)


GROUP = Group("reconcile", {"ls": ls, "show": show, "run": run}, "Two systems compared: what differed, what was done.")
