"""A process whose end hangs: `hanging.py WHERE`, where is `drain`, `stop` or `loop`. Says when it has started and when
it hangs."""

from __future__ import annotations

import asyncio
import sys
import time

from spoolproof.lifecycle.shutdown import StopSignals, run_until_stopped


class Hanging:
    def __init__(self, where: str) -> None:
        self._where = where
        self._fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        say("started")

    def fatal(self) -> asyncio.Future[BaseException]:
        return self._fatal

    async def drain(self) -> None:
        if self._where == "loop":
            say("hangs")
            while True:  # never one endless call: a signal in the moment before it would not be heard in it
                time.sleep(0.05)
        if self._where == "drain":
            say("hangs")
            await asyncio.Event().wait()

    async def stop(self) -> None:
        if self._where == "stop":
            say("hangs")
            await asyncio.Event().wait()


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def main(where: str, drain_seconds: str) -> None:
    stop = StopSignals(drain_seconds=float(drain_seconds), exit_seconds=0.2)
    with stop.installed():
        await run_until_stopped(Hanging(where), stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
