"""`spoolproof topology`: what a service needs in its broker, against what is there."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from spoolproof.backoff import system_random
from spoolproof.cli.exits import FAILED, Refused
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, say, table
from spoolproof.cli.target import load_service
from spoolproof.clock import SystemClock
from spoolproof.consumer.router import Router
from spoolproof.consumer.settings import ConsumerSettings
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.limits import CONSUMER_TIMEOUT_SECONDS
from spoolproof.ports.topology import Inspection
from spoolproof.runtime import topology_of
from spoolproof.wiring import broker_adapter

if TYPE_CHECKING:
    from spoolproof.service import Service

Target = Annotated[str, typer.Argument(metavar="MODULE:SERVICE", help="As in shop:service.")]


def plan(service: Target, as_json: AsJson = False) -> None:
    """Show what the service needs beside what is there; change nothing."""
    _report("plan", load_service(service), declares=False, as_json=as_json)


def apply(service: Target, as_json: AsJson = False) -> None:
    """Declare what is missing; delete and change nothing. For what differs the steps are printed, and the exit is 1."""
    _report("apply", load_service(service), declares=True, as_json=as_json)


def verify(service: Target, as_json: AsJson = False) -> None:
    """Check that all is there, as wanted. Exit 0 fine, 1 not, 3 not reachable."""
    _report("verify", load_service(service), declares=False, as_json=as_json)


def _report(verb: str, service: Service, *, declares: bool, as_json: bool) -> None:
    found = asyncio.run(_inspect(service, declares=declares))
    doubts = [*found.doubts, *_timeout_doubts(service)]
    has_drifted = found.has_drifted or bool(doubts)
    if as_json:
        document = {**asdict(found), "doubts": doubts}
        emit(f"topology.{verb}", {"service": service.name, "is_as_wanted": not has_drifted, **document})
    else:
        _show(found, doubts, shows_all=verb != "verify")
    if has_drifted and verb != "plan":
        raise typer.Exit(FAILED)


def _show(found: Inspection, doubts: list[str], *, shows_all: bool) -> None:
    shown = [item for item in found.items if shows_all or item.is_drift]
    if shown:
        table(("what", "wanted", "found"), [(item.what, item.wanted, item.found) for item in shown])
    for item in found.items:
        if item.remedy:
            say(f"{item.what}: {item.found}\n    → {item.remedy}")
    for doubt in doubts:
        say(doubt)
    fine = sum(not item.is_drift for item in found.items)
    say(f"{found.broker}: {fine} of {len(found.items)} as wanted; not seen: {'; '.join(found.unseen)}")


def _timeout_doubts(service: Service) -> list[str]:
    seconds = service.settings.of(ConsumerSettings).timeout_seconds
    if seconds <= CONSUMER_TIMEOUT_SECONDS:
        return []
    return [
        f"SPOOLPROOF_CONSUMER_TIMEOUT_SECONDS={seconds:g} is above RabbitMQ's own default of "
        f"{CONSUMER_TIMEOUT_SECONDS:g} s, and AMQP does not show the broker's: set consumer_timeout there too"
    ]


async def _inspect(service: Service, *, declares: bool) -> Inspection:
    settings, clock, random = service.settings, SystemClock(), system_random()
    row = broker_adapter(settings)
    if row.inspect is None:
        raise Refused(
            f"the {row.name} broker has no topology of its own: a start makes what it needs",
            "set SPOOLPROOF_BROKER to an amqp:// URL",
        )
    router = service._registrations.of(Router)
    attempts = {name: max(handler.attempts for handler in router.handlers(name)) for name in router.queues}
    supervisor = Supervisor(clock, random)
    try:
        return await row.inspect(
            settings.broker_urls,
            topology_of(service.name, settings, router.specs()),
            attempts,
            declares=declares,
            clock=clock,
            random=random,
            spawn=supervisor.spawn,
        )
    finally:
        await supervisor.stop()


GROUP = Group(
    "topology", {"plan": plan, "apply": apply, "verify": verify}, "Exchanges and queues that a service needs.", place=40
)
