"""`spoolproof spool`: what is kept on this machine while a store is away, and bringing it home by hand."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from spoolproof.cli.exits import Refused
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, say, table
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.settings import load_settings
from spoolproof.spool.part import SpoolPart
from spoolproof.wiring import damaged_spools, look_into_spools, salvage_spool, spool_folder

_POLL_SECONDS = 0.1

Seconds = Annotated[float, typer.Option("--seconds", min=1, max=86400, help="How long to go on.")]
ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="A service's name, as `spool status` shows it.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A file that `spool status` calls damaged.")]


def status(as_json: AsJson = False) -> None:
    """Show every spool file of this machine: of whom, whether a process has it, and what is in it."""
    folder = _folder()
    files = look_into_spools(folder)
    damaged = [str(path) for path in damaged_spools(folder)]
    if as_json:
        documents = [{**asdict(one), "path": str(one.path)} for one in files]
        emit("spool.status", {"folder": str(folder), "files": documents, "damaged": damaged})
        return
    rows = sum(one.rows for one in files)
    say(f"{folder}: {rows} event{'' if rows == 1 else 's'} in {len(files)} file{'' if len(files) == 1 else 's'}")
    if files:
        table(
            ("file", "service", "used", "events", "dead letters", "bytes", "oldest"),
            [
                (
                    *(one.path, one.service, "yes" if one.is_used else "no"),
                    *(one.rows, one.dead_letters, one.data_bytes, one.error or one.oldest_at),
                )
                for one in files
            ],
        )
    for path in damaged:
        say(f"damaged: {path}; what could be read of it has gone on; delete it when you have looked at it")


def drain(service: ServiceName, seconds: Seconds = 60.0, as_json: AsJson = False) -> None:
    """Bring home what processes of a service left behind, with the store and broker of the settings."""
    _folder()
    with asyncio.Runner() as runner:
        found, left = runner.run(_drain(service, seconds))
    if as_json:
        emit("spool.drain", {"service": service, "found": found, "left": left})
    else:
        say(f"{found - left} of {found} events of {service} have left the spool")
    if left:
        raise Refused(
            f"{left} events of {service} still wait in the spool after {seconds:g} s",
            "spoolproof doctor shows whether store and broker can be reached",
        )


async def _drain(name: str, seconds: float) -> tuple[int, int]:
    """Run the spool alone; returns how many events it found, and how many are left."""
    from spoolproof.service import Service

    service = Service(name, settings=load_settings(health_port=None))
    await service.start(only=())
    try:
        part, found = service.runtime.part(SpoolPart), 0
        try:
            async with asyncio.timeout(seconds):
                while not part.is_empty:
                    found = max(found, part.adopted)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            pass
        found, left = max(found, part.adopted), part.waiting
        await service.drain(0)
    finally:
        await service.stop()
    return found, left


def salvage(file: File, as_json: AsJson = False) -> None:
    """Read what can be read of a damaged file into a fresh one, for the next process of its service to bring home."""
    clock = SystemClock()
    found = asyncio.run(salvage_spool(load_settings(), file.absolute(), clock=clock, ids=Ids(clock)))
    if as_json:
        fields: dict[str, Any] = {"rows": found.rows, "dead_letters": found.dead_letters}
        emit("spool.salvage", {**fields, "unreadable": found.unreadable, "damaged": str(found.damaged)})
        return
    say(f"{found.rows} events and {found.dead_letters} dead letters go on; {found.unreadable} places gave nothing back")
    say(f"the damaged file is {found.damaged}")


def _folder() -> Path:
    folder = spool_folder(load_settings())
    if folder is None:
        raise Refused("there is no spool by these settings", "name its folder: SPOOLPROOF_SPOOL=/var/lib/shop/spool")
    return folder


GROUP = Group(
    "spool",
    {"status": status, "drain": drain, "salvage": salvage},
    "Events kept on this machine while the store is away.",
    also=("spools",),
)
