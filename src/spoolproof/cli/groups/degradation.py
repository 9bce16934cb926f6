"""`spoolproof degradation`: how much a service leaves out, and setting it by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from spoolproof.cli.group import Group
from spoolproof.cli.options import Actor, AsJson, actor_or_user
from spoolproof.cli.output import emit, say, table
from spoolproof.cli.store import with_store
from spoolproof.clock import SystemClock
from spoolproof.degradation import offer
from spoolproof.degradation.levels import NAMES
from spoolproof.degradation.part import document
from spoolproof.errors import NotFound
from spoolproof.ports.store import Store

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")]
Level = Annotated[int, typer.Argument(metavar="LEVEL", help="0 normal, 1 reduced, 2 minimal, 3 emergency.")]
Why = Annotated[str, typer.Option("--reason", help="Why; everybody sees it in health.", show_default=False)]
Seconds = Annotated[float, typer.Option("--seconds", help="Until it is over; at most a day.")]


def show(service: ServiceName, as_json: AsJson = False) -> None:
    """Show what is set, and which processes leave something out."""
    found = document(service, with_store(lambda store: _known(store, service)))
    if as_json:
        emit("degradation.show", found)
        return
    chosen = found["set"]
    if chosen is not None:
        until = f"until {chosen['until']:%F %T}Z: {chosen['reason']}"
        say(f"level {chosen['level']} ({chosen['name']}) is set by {chosen['actor']} {until}")
    if found["processes"]:
        names = ("process", "level", "name", "reason", "at")
        table(names, [tuple(one[name] for name in names) for one in found["processes"]])
    if chosen is None and not found["processes"]:
        say(f"level 0 ({NAMES[0]}): nothing is set, and no process of {service} leaves anything out")


def set_(
    service: ServiceName, level: Level, reason: Why, seconds: Seconds = offer.SECONDS, actor: Actor = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Set the level of every process of a service, within 5 s, until it is over or cleared."""
    told = with_store(lambda store: _set(store, service, level, reason, actor_or_user(actor), seconds))
    if as_json:
        emit("degradation.set", {"service": service, **told.document()})
    else:
        say(f"{service} is at level {level} ({NAMES[level]}) until {told.document()['until']:%F %T}Z")


def clear(service: ServiceName, as_json: AsJson = False) -> None:
    """Take back what was set; each process decides for itself again."""
    was_set = with_store(lambda store: offer.clear_level(store.state, service))
    if as_json:
        emit("degradation.clear", {"service": service, "was_set": was_set})
    else:
        say("cleared" if was_set else f"nothing was set for {service}")


async def _known(store: Store, service: str) -> offer.Known:
    await _check(store, service)
    return await offer.known(store.state, service, SystemClock())


async def _set(store: Store, service: str, level: int, reason: str, actor: str, seconds: float) -> offer.Told:
    await _check(store, service)
    return await offer.set_level(
        store.state, service, level, reason=reason, actor=actor, seconds=seconds, clock=SystemClock()
    )


async def _check(store: Store, service: str) -> None:
    """Raise NotFound for a service that never ran here: at 3 a.m. a slip of the finger must not look like success."""
    services = await store.services.all()
    if service not in services:
        raise NotFound(f"no service {service!r} has run on this store; there are {', '.join(services) or 'none'}")


GROUP = Group(
    "degradation", {"show": show, "set": set_, "clear": clear}, "How much a service leaves out, by itself or by hand."
)
