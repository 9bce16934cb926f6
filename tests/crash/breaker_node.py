"""The process `test_breaker_restart` kills: a service with one policy, whose dependency refuses every connection.

One command per line on standard input, one JSON line in answer: `fail` calls until the breaker is open, `call` makes
one call, `isolate` and `release` are what an operator does, anything else only looks. The end of the input ends it.
"""

from __future__ import annotations

import asyncio
import json
import sys

from spoolproof import Service
from spoolproof.policies import Breaker, Consecutive, Policy

psp = Policy(
    "psp",
    Breaker(Consecutive(3), open_seconds=20, open_factor=1, open_jitter=0),
    lint_ignore={"W1"},
)
service = Service("crash")
reached = 0


async def refused() -> None:
    global reached
    reached += 1
    raise ConnectionRefusedError("refused")


async def call() -> str:
    try:
        await psp.call(refused)
    except Exception as error:
        return type(error).__name__
    return ""


async def main() -> None:
    await service.start()
    loop = asyncio.get_running_loop()
    release = None
    answer("ready")
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = line.strip()
        error = ""
        if command == "fail":
            while psp.state == "closed":
                await call()
        elif command == "call":
            error = await call()
        elif command == "isolate":
            release = psp.isolate("maintenance")
        elif command == "release" and release is not None:
            release()
        answer(error)
    await service.drain()
    await service.stop()


def answer(error: str) -> None:
    document = {"error": error, "state": psp.state, "seconds": psp.open_until_seconds, "reached": reached}
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


asyncio.run(main())
