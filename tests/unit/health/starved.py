"""A process with a health thread that runs out of file descriptors when told, driven by its test over stdin and stdout.

Out: the port, then one line per command. Commands: `starve` takes every descriptor there is and answers; `feed` gives
them back and answers with the CPU seconds used meanwhile; the end of the input ends it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from datetime import UTC, datetime

from spoolproof.clock import SystemClock
from spoolproof.health.snapshot import Local, Snapshot
from spoolproof.health.thread import Address, HealthThread

DESCRIPTORS_MAX = 64


def snapshot() -> Snapshot:
    return Snapshot(at=datetime.now(UTC), service="shop", version="1", local=Local(is_started=True))


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def take_all() -> list[int]:
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return taken


async def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, DESCRIPTORS_MAX))
    thread = HealthThread(Address("127.0.0.1", 0), snapshot, SystemClock())
    thread.start()
    say(thread.port)
    taken: list[int] = []
    used = 0.0
    while command := await asyncio.to_thread(sys.stdin.readline):
        if command == "starve\n":
            taken, used = take_all(), time.process_time()
            say(len(taken) > 0)
        else:
            used = time.process_time() - used
            for one in taken:
                os.close(one)
            say(used)
    await thread.stop()


if __name__ == "__main__":
    asyncio.run(main())
