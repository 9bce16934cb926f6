"""The lock file by which others see at once that a process has died.

The kernel drops an flock when the last process that has the file open ends, however it ends; so a lock that can be
taken means a dead owner, and its messages can be rescued without waiting for its lease. A frozen process keeps its
lock: only its lease tells. A child forked while the lock is held shares it, and then too only the lease tells.

The file is made before the owner's row and removed after it. A row without a file (somebody tidied up) proves
nothing, so it too waits for the lease.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def lock_path(database: Path, uuid: str) -> Path:
    """Return where an owner's lock file is: beside the database."""
    return database.with_name(f"{database.name}-owner-{uuid}.lock")


class OwnerLock:
    """The lock of this process's claims, held from the first claim to the last."""

    def __init__(self, database: Path, uuid: str) -> None:
        self._path = lock_path(database, uuid)
        self._descriptor: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a new uuid: nobody else can have it

    def release(self, *, remove: bool) -> None:
        """Let go. remove: the owner's row is gone, so nobody will look for the file."""
        if self._descriptor is None:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


def is_dead(database: Path, uuid: str) -> bool:
    """Tell whether the owner's process has ended for certain: its lock file is there and nobody holds it."""
    try:
        descriptor = os.open(lock_path(database, uuid), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def forget(database: Path, uuid: str) -> None:
    """Remove the lock file of an owner that was rescued."""
    with contextlib.suppress(FileNotFoundError):
        lock_path(database, uuid).unlink()
