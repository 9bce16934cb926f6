"""One process that writes rows to a shared file for ever and notes each acknowledged one; killed by the test beside it.

    python sqlite_writer.py FILE LEDGER NAME CHECKPOINT_PAGES

The ledger gets a line per row after its commit was reported, in one unbuffered write: what the ledger has, the
file must have.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from functools import partial
from pathlib import Path

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.sqlite import Database

BODY = bytes(3000)


def insert(db: sqlite3.Connection, name: str) -> None:
    db.execute("insert into item (name, body) values (?, ?)", (name, BODY))
    # touches pages all over the file, so that checkpoints have something to move out of order
    db.execute("update item set body = ? where id = abs(random()) % (select max(id) from item)", (BODY,))


async def main(path: Path, ledger: int, name: str) -> None:
    database = Database(path, clock=SystemClock())
    await database.start()
    number = 0
    while True:
        names = [f"{name}-{number + n}" for n in range(1 + number % 7)]
        number += len(names)
        await asyncio.gather(*(database.write(partial(insert, name=one)) for one in names))
        os.write(ledger, "".join(f"{one}\n" for one in names).encode())


if __name__ == "__main__":
    file, ledger_path, own_name, pages = sys.argv[1:]
    limits.CHECKPOINT_PAGES = int(pages)
    asyncio.run(main(Path(file), os.open(ledger_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), own_name))
