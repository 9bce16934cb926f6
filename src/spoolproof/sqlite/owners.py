"""The lock file by which others see at once that a process has died.

A lock that can be taken means a dead owner, and what it held can be given to others without waiting for its lease. A
frozen process keeps its lock: only its lease tells.

The file is made before the owner's row and removed after it. A row without a file (somebody tidied up) proves
nothing, so it too waits for the lease.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from spoolproof.sqlite.lockfile import LockFile


def lock_path(database: Path, uuid: str) -> Path:
    """Return where an owner's lock file is: beside the database."""
    return database.with_name(f"{database.name}-owner-{uuid}.lock")


class OwnerLock:
    """The lock of this process under one identity, held for as long as it may hold anything else."""

    def __init__(self, database: Path, uuid: str) -> None:
        """Raises OSError."""
        self._file = LockFile(lock_path(database, uuid))
        self._file.try_acquire()  # a new uuid: nobody else can have it

    def release(self, *, remove: bool) -> None:
        """Let go. remove: the owner's row is gone, so nobody will look for the file. Idempotent."""
        if remove:
            with contextlib.suppress(OSError):  # what stays is one empty file
                self._file.path.unlink(missing_ok=True)
        self._file.close()


def is_dead(database: Path, uuid: str) -> bool:
    """Tell whether the owner's process has ended for certain: its lock file is there and nobody holds it."""
    file = LockFile(lock_path(database, uuid))
    try:
        return file.try_acquire(create=False)
    except OSError:  # not there, or it cannot be asked now: the lease will tell
        return False
    finally:
        file.close()


def forget(database: Path, uuid: str) -> None:
    """Remove the lock file of an owner that was rescued."""
    with contextlib.suppress(OSError):
        lock_path(database, uuid).unlink()
