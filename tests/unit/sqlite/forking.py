"""A process with an open file that forks: `forking.py PATH`, driven by its test.

Says the id of its child, then writes without pause until it is killed. The child waits for a line of its stdin, tries
to use what it inherited, says what came of it, and ends as Python does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

from spoolproof.clock import SystemClock
from spoolproof.errors import StoreUnavailable
from spoolproof.sqlite import Database


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def use(database: Database) -> None:
    try:
        await database.write(lambda db: db.execute("insert into item values ('by the child', x'')"))
    except StoreUnavailable as error:
        say(error)
    await database.stop()


async def start(path: Path, stack: AsyncExitStack) -> Database:
    """Return the file, in a transaction that `stack` ends: the child gets a connection with SQLite's write lock."""
    database = Database(path, clock=SystemClock())
    await database.start()
    tx = await stack.enter_async_context(database.transaction())
    await tx.run(lambda db: db.execute("insert into item values ('by the parent', x'')"))
    return database


async def write(database: Database, stack: AsyncExitStack) -> None:
    await stack.aclose()
    for n in count():
        await database.write(lambda db, n=n: db.execute("insert into item values (?, x'')", (f"n{n}",)))  # type: ignore[misc]
        if n == 100:
            say("writing")


def main(path: str) -> None:
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    database = loop.run_until_complete(start(Path(path), stack))
    child = os.fork()
    if child:
        say(child)
        loop.run_until_complete(write(database, stack))
    sys.stdin.readline()
    asyncio.run(use(database))


if __name__ == "__main__":
    main(sys.argv[1])
