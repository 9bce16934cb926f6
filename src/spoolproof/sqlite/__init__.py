"""One SQLite file, written by one thread per process: what the SQLite store and the embedded broker stand on.

::

    database = Database(path, clock=clock)
    await database.start()
    n = await database.write(lambda connection: connection.execute("…").rowcount)     # committed on return
    database.write_soon(work, done)                      # the same without a future; done(result or exception)
    rows = await database.read(lambda connection: connection.execute("…").fetchall())
    async with database.transaction() as tx:             # exclusive, held across awaits, at most 5 s
        await tx.run(lambda connection: …)
    await database.data_version()                        # changes when another connection commits
    await database.stop()

What waits for the writer shares one `BEGIN IMMEDIATE … COMMIT`, so an fsync is paid once for up to 256 requests. A
piece of work is a plain function of the connection: it runs on the writer's thread, must not begin, commit or roll
back, and may run twice (the batch is rolled back and repeated when a neighbour fails), so it changes nothing but the
database.

Rules for whoever adds to this, all of them about losing rows:
- only the standard library's `sqlite3`: a second copy of SQLite in the process breaks the POSIX locks of the first;
- nothing calls `open()` on the database file, its `-wal` or its `-shm`: closing that drops the same locks;
- `synchronous=FULL` on every connection, read back when it is opened;
- only the writer's thread checkpoints (see `checkpoint`).
"""

from __future__ import annotations

from spoolproof.sqlite.connection import NOW
from spoolproof.sqlite.database import Database
from spoolproof.sqlite.statements import load_statements, split_script
from spoolproof.sqlite.steady import STEADY
from spoolproof.sqlite.threads import Runner, ThreadRunner
from spoolproof.sqlite.transaction import Transaction

__all__ = ["NOW", "STEADY", "Database", "Runner", "ThreadRunner", "Transaction", "load_statements", "split_script"]
