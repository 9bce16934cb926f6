"""The process the webhook crash test kills: a service with one endpoint, which publishes what it is told to.

`webhook_node.py PORT PUBLISH`: publishes so many events unless they were published before, prints `ready`, and runs
until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from spoolproof import Service, limits
from spoolproof.errors import Conflict

limits.WEBHOOK_LOOK_SECONDS = 0.1
sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))
from receivers import SECRET  # type: ignore[import-not-found]  # noqa: E402


async def main(port: str, events: int) -> None:
    service = Service("crash")
    await service.start()
    try:
        await service.webhooks.add("all", f"http://localhost:{port}/ok", ["*"], secret=SECRET)
    except Conflict:
        events = 0
    for n in range(events):
        await service.publish({"n": n}, type="order.placed", id=f"order-{n}")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await service.drain(1.0)
    await service.stop()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
