"""The lock that write transactions and checkpoints of all our processes share, and the checkpoint itself.

Why a lock beside SQLite's own. SQLite 3.7.0 to 3.51.2 can lose committed rows or damage the file when one connection's
commit starts the write-ahead log over at the moment another one begins a checkpoint (https://sqlite.org/wal.html,
"the WAL-reset bug"; fixed in 3.51.3, 3.50.7, 3.44.6). So automatic checkpoints are off on every connection, only the
writer's thread of each process checkpoints, and it does so under the lock every write transaction holds. The lock is
an exclusive flock on `<file>.writer`: SQLite runs one write transaction at a time anyway, so sharing it would gain
nothing, and with one kind of holder a checkpoint cannot be starved: the holder of the lock runs it right after its own
commit. The kernel gives the lock back when a process dies.

It also makes waiting fair. SQLite's busy handler sleeps up to 100 ms between looks, so a process that writes without
pause could keep another out for seconds, long enough to lose its leases; here the one outside looks every 0.5 ms.

What it does not cover. A user's own connection commits without this lock. Against it stands SQLite's own write lock,
which `wal_checkpoint(RESTART)` takes before it starts; only, when it cannot get that within the busy timeout, it goes
on as a PASSIVE checkpoint without it. So the write lock is tried first, and the checkpoint put off when somebody has
it. What is left: a foreign connection that begins to write in the microseconds between the two, stays for the whole
busy timeout, and whose commit starts the log over at that very moment. A fixed SQLite closes it.

When. The log is due when its file is over CHECKPOINT_PAGES. Its size tells how much is in it, because
`journal_size_limit` cuts the file back at the first commit after a restart; it is read with stat, which opens nothing.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import StoreUnavailable
from spoolproof.sqlite.connection import data_version, log_bytes_max
from spoolproof.sqlite.lockfile import LockFile, holders
from spoolproof.sqlite.threads import Runner


class WriterLock:
    """The lock. Used by one thread."""

    def __init__(self, path: Path, runner: Runner) -> None:
        """path: of the database file; the lock file is beside it."""
        self.path = path.with_name(path.name + ".writer")
        self._runner = runner
        self._file = LockFile(self.path)
        self.is_held = False

    def acquire(self, seconds: float = limits.STATEMENT_SECONDS) -> None:
        """Take the lock. Raises StoreUnavailable when others keep it for `seconds`, or it cannot be had at all."""
        # counted, not measured: flock with a time limit does not exist, and one without would hang on a frozen process
        for _ in range(max(1, round(seconds / limits.WRITER_LOCK_POLL_SECONDS))):
            if self.try_acquire():
                return
            self._runner.pause(limits.WRITER_LOCK_POLL_SECONDS)
        ids = ", ".join(map(str, holders(self.path)))
        who = f"process {ids}; end it if it hangs" if ids else "a process that cannot be seen from here"
        raise StoreUnavailable(f"{self.path} has been locked for over {seconds:g} s by {who}")

    def try_acquire(self) -> bool:
        """Take the lock if it is free now. Raises StoreUnavailable."""
        try:
            self.is_held = self._file.try_acquire()
        except OSError as error:
            raise StoreUnavailable(f"{self.path} cannot be locked: {error.strerror}") from error
        return self.is_held

    def release(self) -> None:
        """Give the lock back; harmless without it."""
        self.is_held = False
        self._file.release()

    def close(self) -> None:
        """Close the lock file, which also gives the lock back."""
        self._file.close()


class Checkpoints:
    """Moves the log into the file when it is due. Used by the writer's thread, with the lock held."""

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Clock) -> None:
        self._log_path = path.with_name(path.name + "-wal")
        self._connection = connection
        self._clock = clock
        self._step_bytes = log_bytes_max(connection)
        self._due_bytes = self._step_bytes
        self._done_at = clock.monotonic()
        self._seen_version = -1
        self._has_commits = True  # whoever died before us may have left a long log

    def note_commit(self) -> None:
        """Remember that there is something to move."""
        self._has_commits = True

    def run_if_due(self) -> None:
        """Checkpoint when there is something to move and the log is long or the last time long ago."""
        if (self._is_old() or self._log_bytes() > self._due_bytes) and self._has_news():
            self._run()

    def _is_old(self) -> bool:
        return self._clock.monotonic() - self._done_at >= limits.CHECKPOINT_SECONDS

    def _has_news(self) -> bool:
        return self._has_commits or data_version(self._connection) != self._seen_version

    def _log_bytes(self) -> int:
        try:
            return self._log_path.stat().st_size
        except OSError:  # none, or it cannot be asked now: the age of the last checkpoint makes the next one due
            return 0

    def _run(self) -> None:
        self._done_at = self._clock.monotonic()
        is_complete = False
        self._set_busy_seconds(limits.CHECKPOINT_BUSY_SECONDS)
        try:
            self._connection.execute("BEGIN IMMEDIATE")  # somebody else writing: not now
            self._connection.execute("ROLLBACK")
            is_busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            is_complete = not is_busy
            self._has_commits = not is_complete
            self._seen_version = data_version(self._connection)
        except sqlite3.Error:
            # every row is safe in the log; what ails the file will meet the next commit, which has somebody to tell
            self._has_commits = True
        finally:
            self._set_busy_seconds(limits.STATEMENT_SECONDS)
        # a long reader holds the log: waiting for it at every commit would stop all writers
        self._due_bytes = self._step_bytes if is_complete else self._log_bytes() + self._step_bytes

    def _set_busy_seconds(self, seconds: float) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}").fetchone()
