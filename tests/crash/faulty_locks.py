"""A service on SQLite whose locks fail while it is told so: `faulty_locks.py DIRECTORY`.

SIGUSR1 turns the faults on and off. Publishes without pause, and says what came of it when that changes; says each
delivery.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import sys

from spoolproof import Service
from spoolproof.cli.groups.run import Running
from spoolproof.errors import StoreUnavailable
from spoolproof.health.thread import Address
from spoolproof.lifecycle.shutdown import StopSignals, run_until_stopped
from spoolproof.settings import load_settings

_flock = fcntl.flock
is_faulty = False


def flock(descriptor: int, operation: int) -> None:
    if is_faulty:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    _flock(descriptor, operation)


def turn(*_: object) -> None:
    global is_faulty
    is_faulty = not is_faulty


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def publish(service: Service) -> None:
    said = ""
    while True:
        try:
            await service.publish({}, type="job")
            outcome = "stored"
        except StoreUnavailable:
            outcome = "away"
        if outcome != said:
            say(outcome)
            said = outcome
        await asyncio.sleep(0.05)


async def main(directory: str) -> None:
    service = Service("shop", settings=load_settings(data_dir=directory, drain_seconds=2.0))

    @service.on("job")
    async def job(payload: dict[str, object]) -> None:
        say("delivered")

    class Publishing(Running):
        async def start(self) -> None:
            await super().start()
            self.publishing = asyncio.ensure_future(publish(service))

        async def drain(self) -> None:
            self.publishing.cancel()
            await super().drain()

    stop = StopSignals(drain_seconds=2.0)
    with stop.installed():
        await run_until_stopped(Publishing(service, ["relay", "consumer"], Address("127.0.0.1", 0)), stop)


if __name__ == "__main__":
    fcntl.flock = flock
    signal.signal(signal.SIGUSR1, turn)
    asyncio.run(main(*sys.argv[1:]))
