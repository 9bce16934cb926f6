"""A process with one embedded broker, driven by its tests: one JSON line out per event, one command per line in.

`embedded_worker.py PATH CLAIM_SECONDS PREFETCH FAILPOINTS`: consumes queue `q` unless PREFETCH is 0. Commands: `ack`
settles everything received; `publish ID`; `stop`. Events: {"ready": true}, {"got": [id, delivery count]},
{"acked": [true, …]}, {"outcome": name}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from spoolproof.brokers.embedded import EmbeddedBroker
from spoolproof.clock import SystemClock
from spoolproof.failpoints import arm, parse_plan
from spoolproof.ids import Ids
from spoolproof.ports.broker import Incoming, QueueSpec, Topology
from spoolproof.testing.conformance._messages import make_outgoing

TOPOLOGY = Topology(
    service="test",
    exchange="test.events",
    queues=(QueueSpec(name="q", types=("test.happened",), delivery_limit=20),),
    tiers_seconds=(1,),
)


def say(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def main(path: str, claim_seconds: str, prefetch: str, failpoints: str) -> None:
    arm(parse_plan(failpoints))
    clock = SystemClock()
    broker = EmbeddedBroker(
        Path(path),
        clock=clock,
        ids=Ids(clock),
        spawn=lambda work, name: asyncio.get_running_loop().create_task(work, name=name),
        claim_seconds=float(claim_seconds),
    )
    held: list[Incoming] = []

    def on_delivery(delivery: Incoming) -> None:
        held.append(delivery)
        say(got=[delivery.message.id, delivery.delivery_count])

    await broker.start(TOPOLOGY)
    if int(prefetch):
        await broker.subscribe("q", int(prefetch), on_delivery)
    await broker.wait_for_room(10.0)
    say(ready=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode().split():
        if line[0] == "ack":
            say(acked=[delivery.ack() for delivery in held])
            held.clear()
        elif line[0] == "publish":
            broker.submit(
                make_outgoing(id=line[1]), None, lambda pairs: say(outcome=type(pairs[0][1]).__name__.lower())
            )
        else:
            break
    await broker.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
