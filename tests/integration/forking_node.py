"""A service that forks in the middle of a transaction: `forking_node.py PORT DIRECTORY STORE BROKER`.

Says the id of the child, which waits for the end of its stdin, as an idle pool worker does.
"""

from __future__ import annotations

import asyncio
import os
import sys

from spoolproof import Service
from spoolproof.health.thread import Address
from spoolproof.settings import load_settings


async def main(port: str, directory: str, store: str, broker: str) -> None:
    settings = load_settings(data_dir=directory, store=store, broker=broker, broker_required=True, migrate="auto")
    service = Service("shop", settings=settings)
    await service.start(health=Address("127.0.0.1", int(port)))
    async with service.transaction() as tx:
        await tx.execute("select pg_advisory_xact_lock(42)")
        child = os.fork()
        if child == 0:
            sys.stdin.read()
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
