"""A lock that dies with its process: an flock on a file of its own.

The kernel gives an flock back when the last process that has the open file ends. A forked child has it too, so it
closes every lock file at once (`forks`); the lock itself stays with the parent, which has the file open.

A file that has met an error is closed, and opened anew at the next try: an error never outlives its cause, and closing
gives the lock back even where unlocking fails.

Never here: the database file, its `-wal` or its `-shm`; closing one of those drops SQLite's own locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from spoolproof.forks import guard, let_go_in_child

_PROCESSES = Path("/proc")


class LockFile:
    """The lock of one file. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Opens nothing; the first try does."""
        self.path = path
        self._descriptor: int | None = None

    def try_acquire(self, *, create: bool = True) -> bool:
        """Take the lock if it is free now. Raises OSError."""
        if self._descriptor is None:
            self._open(os.O_CREAT if create else 0)
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except BaseException:
            self.close()
            raise
        return True

    def release(self) -> None:
        """Give the lock back; harmless without it."""
        if self._descriptor is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the file, which also gives the lock back. Idempotent."""
        with guard:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                with contextlib.suppress(OSError):  # the kernel has forgotten it whatever it says
                    os.close(descriptor)

    def let_go(self) -> None:
        """In a child: the lock is not its own."""
        self.close()

    def _open(self, flags: int) -> None:
        with guard:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
            let_go_in_child(self)


def holders(path: Path) -> list[int]:
    """Return the ids of the processes that have a locked file open, as far as this one may see. For messages."""
    found = []
    for process in _PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            numbers = os.listdir(process / "fd")
            if any(_leads_to(process, number, path) and _is_locked(process, number) for number in numbers):
                found.append(int(process.name))
    return sorted(found)


def _leads_to(process: Path, descriptor: str, path: Path) -> bool:
    return os.readlink(process / "fd" / descriptor) == str(path.resolve())


def _is_locked(process: Path, descriptor: str) -> bool:
    return "\nlock:" in (process / "fdinfo" / descriptor).read_text()
