"""A service on SQLite that publishes one event and says when it was delivered: `clock_node.py DIRECTORY`."""

from __future__ import annotations

import asyncio
import sys

from spoolproof import Service
from spoolproof.settings import load_settings


async def main(directory: str) -> None:
    service = Service("shop", settings=load_settings(data_dir=directory))

    @service.on("job")
    async def job(payload: dict[str, object]) -> None:
        sys.stdout.write("delivered\n")
        sys.stdout.flush()

    await service.start()
    await service.publish({}, type="job")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
