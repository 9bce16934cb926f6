"""The process the alert crash test kills: its disk is taken for full. It runs until its standard input ends."""

from __future__ import annotations

import asyncio
import sys

from spoolproof import Service
from spoolproof.alerts import limits

limits.LOOK_SECONDS, limits.SHARE_SECONDS, limits.FIRST_SECONDS, limits.FURTHER_SECONDS = 0.1, 0.1, 0.3, 0.3


async def main() -> None:
    service = Service("crash")
    await service.start()
    await asyncio.to_thread(sys.stdin.read)
    await service.drain(1.0)
    await service.stop()


asyncio.run(main())
