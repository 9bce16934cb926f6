"""Spool files: each a SQLite store of its own, held by the flock on the `.lock` beside it.

`<folder>/<uuid>.db` is made when it is first needed and deleted when its owner closes it empty: empty as a connection
opened after the last commit finds it, so that nothing that was still on its way is taken for nothing. A damaged file is
copied, as far as it can be read, into a fresh one, and only then renamed `<uuid>.db.corrupt-<time>`: killed between the
two, the next process does it again, and receivers drop the second copies.

A row that SQLite has no room for takes its whole batch with it, and every caller of the batch is told SpoolFull.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from spoolproof.clock import Clock
from spoolproof.errors import Conflict, NotFound, SpoolFull, SpoolproofError, StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.message import Outgoing
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.leases import Fence
from spoolproof.ports.outbox import RowRef
from spoolproof.ports.services import Block, shard_name
from spoolproof.ports.spool import HOME, STRAIGHT, Salvaged, SpoolLook
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.sqlite import load_statements
from spoolproof.sqlite.connection import make_directory, sync_directory
from spoolproof.sqlite.errors import primary_code
from spoolproof.sqlite.lockfile import LockFile
from spoolproof.stores.outbox import columns_of
from spoolproof.stores.sqlite.outbox import SqliteOutbox, insert
from spoolproof.stores.sqlite.salvage import copy_readable, is_sound
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of

_SQL = load_statements(__package__, "spool.sql")
_LEASE_SECONDS = 1e9  #: the lock is what ends it
_BESIDE = ("-wal", "-shm", ".writer", "-owner-*.lock", ".schema-*")  #: of a file; never what was found damaged
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TIGHT = "it empties when store and broker are back; make room on the disk, or raise {variable}"


class SqliteSpools:
    """Implements `ports.spool.Spools`. folder: of one service, None where it has no spool; is_home: its files are the
    service's only store, and their messages have one lane."""

    def __init__(
        self,
        folder: Path | None,
        service: str,
        *,
        rows_max: int,
        bytes_max: int,
        free_bytes_min: int,
        clock: Clock,
        ids: Ids,
        ports: Sequence[str] = (),
        is_home: bool = False,
    ) -> None:
        self.folder = folder
        self.service = service
        self.rows_max = rows_max
        self.bytes_max = bytes_max
        self.free_bytes_min = free_bytes_min
        self.clock = clock
        self.ids = ids
        self.ports = ports
        self.is_home = is_home
        self.open: list[SpoolStore] = []

    def new(self) -> SpoolStore:
        return self._fresh(has_lanes=not self.is_home)

    def _fresh(self, *, has_lanes: bool) -> SpoolStore:
        if self.folder is None:
            raise StoreUnavailable(f"service {self.service!r} has no spool; name a folder in SPOOLPROOF_SPOOL")
        return SpoolStore(self, self.folder / f"{self.ids.uuid7()}.db", has_lanes=has_lanes)

    async def adopt(self) -> Sequence[SpoolStore]:
        found = []
        for path in sorted(self.folder.glob("*.db")) if self.folder is not None else ():
            file = SpoolStore(self, path, has_lanes=True)
            try:
                if file.try_lock():
                    await file.start()
                    found.append(file)
            except _Damaged:
                found.append(await self.salvage(path))
                file.unlock(remove=True)
        return found

    async def salvage(self, path: Path) -> SpoolStore:
        """Return a started fresh file with what could be read of a damaged one, which is renamed."""
        fresh = self._fresh(has_lanes=True)
        await fresh.start()
        rows, dead_letters, unreadable = await fresh.database.write(partial(copy_readable, path))
        kept = path
        if ".corrupt-" not in path.name:
            stamp = self.clock.now().strftime("%Y%m%dT%H%M%SZ")
            kept = path.with_name(f"{path.name}.corrupt-{stamp}")
            for suffix in ("-wal", "-shm", ""):  # the file last: until it has its name, all of this is done again
                with suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
            sync_directory(path.parent)
        await fresh.count()
        fresh.salvaged = Salvaged(rows=rows, dead_letters=dead_letters, unreadable=unreadable, damaged=kept)
        return fresh

    def damaged(self) -> Sequence[Path]:
        return damaged_below(self.folder) if self.folder is not None else []

    @property
    def fullness(self) -> float:
        if not self.open or self.folder is None:
            return 0.0
        rows, data_bytes = sum(one.rows for one in self.open), sum(one.data_bytes for one in self.open)
        free = shutil.disk_usage(self.folder).free
        return max(rows / self.rows_max, data_bytes / self.bytes_max, self.free_bytes_min / max(1, free))

    def check_room(self, rows: int) -> None:
        """Raise SpoolFull unless so many rows fit in, by number and by what the disk has left."""
        held = sum(one.rows for one in self.open)
        if held + rows > self.rows_max:
            raise SpoolFull(
                "rows in the spool", held, self.rows_max, _TIGHT.format(variable="SPOOLPROOF_SPOOL_ROWS_MAX")
            )
        usage = shutil.disk_usage(self.folder or Path())
        if usage.free < self.free_bytes_min:
            remedy = _TIGHT.format(variable="the disk's size; SPOOLPROOF_SPOOL_FREE_BYTES_MIN is kept free")
            raise SpoolFull(
                "bytes used of the spool's disk", usage.total - usage.free, usage.total - self.free_bytes_min, remedy
            )

    def check_bytes(self, file: SpoolStore, data_bytes: int) -> None:
        """Raise SpoolFull unless a file may grow to so many bytes."""
        data_bytes += sum(one.data_bytes for one in self.open if one is not file)
        if data_bytes > self.bytes_max:
            remedy = _TIGHT.format(variable="SPOOLPROOF_SPOOL_BYTES_MAX")
            raise SpoolFull("bytes in the spool", data_bytes, self.bytes_max, remedy)


class SpoolStore(SqliteStore):
    """Implements `ports.spool.SpoolFile`."""

    def __init__(self, spools: SqliteSpools, path: Path, *, has_lanes: bool) -> None:
        super().__init__(path, clock=spools.clock, ids=spools.ids, outbox_rows_max=spools.rows_max, ports=spools.ports)
        self.path = path
        self.spools = spools
        self.outbox = _SpoolOutbox(self)
        self.fences: Sequence[Fence] = ()
        self.salvaged: Salvaged | None = None
        self.rows = 0
        self.data_bytes = 0
        self.oldest_at: datetime | None = None
        self._has_lanes = has_lanes
        self._lock = LockFile(path.with_suffix(".lock"))
        self._is_locked = False

    def try_lock(self) -> bool:
        """Take the lock of a file that is there; False if a living process has it."""
        try:
            self._is_locked = self._lock.try_acquire()
        except OSError as error:
            raise StoreUnavailable(f"{self._lock.path} cannot be locked: {error.strerror}") from error
        if not self._is_locked:
            self.unlock()
        elif not self.path.exists():  # its owner deleted it while we looked
            self.unlock(remove=True)
        return self._is_locked

    def unlock(self, *, remove: bool = False) -> None:
        if remove:
            with suppress(OSError):  # what stays is one empty file
                self._lock.path.unlink(missing_ok=True)
        self._is_locked = False
        self._lock.close()

    async def start(self) -> None:
        """Also raises _Damaged, with the lock still held."""
        if self in self.spools.open:
            return
        is_new = not self.path.exists()
        if not self._is_locked:
            try:
                make_directory(self.path.parent)
                self._is_locked = self._lock.try_acquire()
            except OSError as error:
                raise StoreUnavailable(f"{self.path}: {error.strerror}") from error
            if not self._is_locked:
                self.unlock()
                raise StoreUnavailable(f"{self.path} is in use by another process")
        try:
            await self._open(is_new)
        except _Damaged:
            await self.database.stop()
            raise
        except BaseException:
            await self.database.stop()
            self.unlock()
            raise
        self.spools.open.append(self)

    async def _open(self, is_new: bool) -> None:
        try:
            await super().start()
            if not is_new and not await self.database.read(is_sound):
                raise _Damaged(str(self.path))
        except StoreUnavailable as error:
            if primary_code(error) in _DAMAGED:
                raise _Damaged(str(self.path)) from error
            raise
        await self.migrations.apply()
        await self.services.claim(self.spools.service)
        if is_new:
            await self.database.write(lambda _: sync_directory(self.path.parent))
        if self._has_lanes:
            owner, kind = self.ids.uuid7(), Block(0, 2).lease_kind
            names = [shard_name(lane) for lane in (STRAIGHT, HOME)]

            def take(connection: sqlite3.Connection) -> list[int]:
                rows = [(kind, name, str(owner), _LEASE_SECONDS) for name in names]
                return [connection.execute(_SQL["take"], row).fetchall()[0][0] for row in rows]

            epochs = await self.database.write(take)
            self.fences = [
                Fence(kind=kind, name=name, owner=owner, epoch=epoch) for name, epoch in zip(names, epochs, strict=True)
            ]
        await self.count()

    async def stop(self) -> None:
        await super().stop()
        if self in self.spools.open:
            self.spools.open.remove(self)
            if self._is_empty():
                self._delete()
                self.unlock(remove=True)
        self.unlock()

    def _is_empty(self) -> bool:
        try:
            with closing(sqlite3.connect(self.path)) as connection:
                (keeps,) = connection.execute(_SQL["keeps"]).fetchone()
        except sqlite3.Error:
            return False
        return not keeps

    def _delete(self) -> None:
        with suppress(OSError):  # what stays is adopted, found empty, and deleted then
            beside = [one for kind in _BESIDE for one in self.path.parent.glob(f"{self.path.name}{kind}")]
            for path in (self.path, *beside):
                path.unlink(missing_ok=True)

    async def put(self, records: Sequence[Outgoing], lanes: Sequence[int]) -> None:
        if not records:
            return
        self.spools.check_room(len(records))
        rows = [columns_of(one, lane) for one, lane in zip(records, lanes, strict=True)]
        body_bytes = sum(len(one.message.body) for one in records)

        def work(connection: sqlite3.Connection) -> int:
            data_bytes = _data_bytes(connection) + body_bytes
            self.spools.check_bytes(self, data_bytes)
            insert(connection, rows)
            return data_bytes

        self.rows += len(rows)  # at once: whoever comes in the meantime counts them
        try:
            self.data_bytes = await self.database.write(work, body_bytes=body_bytes)
        except BaseException as error:
            self.rows -= len(rows)
            if primary_code(error) == sqlite3.SQLITE_FULL:
                usage = shutil.disk_usage(self.path.parent)
                remedy = _TIGHT.format(variable="the disk's size")
                raise SpoolFull("bytes used of the spool's disk", usage.used, usage.total, remedy) from error
            raise

    async def count(self) -> None:
        self.rows, _, oldest, self.data_bytes = await self.database.read(_count)
        self.oldest_at = None if oldest is None else instant_of(oldest)

    async def drop_dead_letter(self, id: str) -> None:
        await self.database.write(lambda connection: connection.execute(_SQL["drop_dead_letter"], (id,)).rowcount)


class _SpoolOutbox(SqliteOutbox):
    """The outbox of a spool file: with the spool's limits, and counted."""

    def __init__(self, file: SpoolStore) -> None:
        super().__init__(
            *(file.database, file.services, file.dead_letters.keep), rows_max=file.spools.rows_max, clock=file.clock
        )
        self._file = file

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if tx is None:
            await self._file.put(records, [STRAIGHT] * len(records))
            return
        self._file.spools.check_room(len(records))
        await super().append(records, tx)

    async def remove(self, refs: Sequence[RowRef]) -> int:
        removed = await super().remove(refs)
        self._file.rows = max(0, self._file.rows - removed)
        return removed

    async def give_up(self, ref: RowRef, dead_letter: DeadLetterRecord, fence: Fence) -> bool:
        is_given_up = await super().give_up(ref, dead_letter, fence)
        self._file.rows -= is_given_up
        return is_given_up


class _Damaged(Exception):
    """SQLite finds the file damaged."""


def damaged_below(folder: Path) -> Sequence[Path]:
    """Return the files of a folder that were found damaged."""
    return [path for path in sorted(folder.glob("*.db.corrupt-*")) if not path.name.endswith(("-wal", "-shm"))]


def look(path: Path) -> SpoolLook:
    """Return what is in a file, without changing it; whether it is used, and by its lock nobody adopts it meanwhile."""
    lock = LockFile(path.with_suffix(".lock"))
    try:
        is_used = not lock.try_acquire(create=False)
    except OSError:
        is_used = False
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma query_only = on")
            rows, dead_letters, oldest, data_bytes = _count(connection)
    except sqlite3.Error as error:
        return SpoolLook(path=path, service=path.parent.name, is_used=is_used, error=str(error))
    finally:
        lock.close()
    return SpoolLook(
        path=path,
        service=path.parent.name,
        is_used=is_used,
        rows=rows,
        dead_letters=dead_letters,
        data_bytes=data_bytes,
        oldest_at=None if oldest is None else instant_of(oldest),
    )


def _count(connection: sqlite3.Connection) -> tuple[int, int, float | None, int]:
    return (*connection.execute(_SQL["count"]).fetchone(), _data_bytes(connection))


def _data_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        int(connection.execute(f"pragma {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


async def salvage_by_hand(spools: SqliteSpools, path: Path) -> Salvaged:
    """Salvage one file that nobody has and that is not sound. Raises NotFound, Conflict."""
    lock = LockFile(path.with_name(path.name.partition(".db")[0] + ".lock"))
    try:
        if fault := _salvage_fault(path, lock):
            fault.hint = "spoolproof spool status"
            raise fault
        fresh = await spools.salvage(path)
        await fresh.stop()
        assert fresh.salvaged is not None  # that is what salvage returns
        return fresh.salvaged
    finally:
        lock.close()


def _salvage_fault(path: Path, lock: LockFile) -> SpoolproofError | None:
    if not path.is_file():
        return NotFound(f"there is no file {path}")
    if not lock.try_acquire():
        return Conflict(f"{path} is in use by a living process, which looks after it")
    with closing(sqlite3.connect(path)) as connection:
        if ".corrupt-" not in path.name and is_sound(connection):
            return Conflict(f"{path} is sound; a running service of that name empties it, and so does `spool drain`")
    return None
