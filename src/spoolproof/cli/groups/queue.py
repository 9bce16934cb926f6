"""`spoolproof queue`: which queues the services of a store have, who reads them, and the end of one nobody reads."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spoolproof.backoff import system_random
from spoolproof.cli.exits import Refused
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson, Yes
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.clock import SystemClock
from spoolproof.consumer import queues
from spoolproof.consumer.retire import Retired
from spoolproof.consumer.retire import retire as retire_queue
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.store import Store
from spoolproof.settings import load_settings
from spoolproof.wiring import broker_adapter, build_broker


def ls(as_json: AsJson = False) -> None:
    """List the queues of every service of the store, and since when nobody reads those that nobody does."""
    found = with_store(queues.document)
    if as_json:
        emit("queue.ls", found)
    elif not found["queues"]:
        say("no queue is known: no process with handlers has run on this store")
    else:
        rows = [(one["service"], one["queue"], _reader(one), ", ".join(one["types"])) for one in found["queues"]]
        table(("service", "queue", "read", "types"), rows)


def retire(
    name: Annotated[str, typer.Argument(metavar="QUEUE")],
    to: Annotated[
        str | None, typer.Option("--to", help="The queue its messages go to. [default: dead letters]")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="What it is bound to, if that is not known.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Unbind a queue that no handler reads, move what is in it, and delete it when it is empty."""
    settings = load_settings()
    if broker_adapter(settings).is_forgetful:
        raise Refused(
            f"SPOOLPROOF_BROKER={settings.broker_urls[0]} lives inside its service's process",
            "set SPOOLPROOF_BROKER to the broker that has the queue",
        )
    if not yes and not typer.confirm(f"Move what is in {name} and delete it?"):
        raise typer.Abort

    async def act(store: Store) -> Retired:
        service = await queues.owner_of(store, name)
        clock = SystemClock()
        supervisor, ids = Supervisor(clock, system_random()), Ids(clock)
        broker = build_broker(settings, clock=clock, ids=ids, random=system_random(), spawn=supervisor.spawn)
        try:
            return await retire_queue(
                store,
                broker,
                service=service,
                exchange=settings.exchange,
                queue=name,
                types=types or (),
                to=to,
                clock=clock,
                ids=ids,
            )
        finally:
            await broker.stop()
            await supervisor.stop()

    done = with_store(act)
    if as_json:
        emit("queue.retire", {"queue": done.queue, "moved": done.moved, "destroyed": done.destroyed})
        return
    where = "dead letters: spoolproof dlq ls" if to is None else f"on their way to {to}"
    say(plain(f"queue {done.queue} is gone; {done.moved} messages of it are {where}"))
    if done.destroyed:
        say(f"{done.destroyed} messages were sent to it by name in its last moment, and went with it")


def _reader(one: dict[str, Any]) -> str:
    if one["stranded_since"] is None:
        return "yes"
    return f"by nobody since {one['stranded_since']}; {one['messages']} wait"


GROUP = Group("queue", {"ls": ls, "retire": retire}, "Queues of the services, and who reads them.", also=("queues",))
