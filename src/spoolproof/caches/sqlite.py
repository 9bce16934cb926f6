"""A file of this machine as the shared cache.

The rules are those of `ports.cache`, each a statement in one transaction; no version is compared outside one. What was
told to the other processes is a table, read twice a second, so nothing told is missed. A file that is damaged is put
aside and a new one is made: a lost cached value is a miss.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from spoolproof.caches.events import CacheFileReplaced
from spoolproof.clock import Clock
from spoolproof.errors import SpoolproofError, StoreUnavailable
from spoolproof.ids import random_id
from spoolproof.ports.cache import (
    ENTRY,
    NOTHING,
    SEEN_BYTES,
    TOMBSTONE,
    TOMBSTONE_SECONDS,
    Action,
    Barriers,
    CacheAway,
    Heard,
    Invalidation,
    Listener,
    Reading,
    Write,
)
from spoolproof.sqlite import Database
from spoolproof.telemetry.events import emit

T = TypeVar("T")

ANSWER_SECONDS = 2.0
POLL_SECONDS = 0.5
PRUNE_SECONDS = 60.0
PRUNE_ROWS = 500
FILE_BYTES_MAX = 512 * 1024**2
TOLD_MAX = 10_000
BARRIERS_MAX = 10_000
_SCHEMA = (
    "create table if not exists entry (key text primary key, raw blob not null, dead_at real not null) without rowid",
    "create index if not exists entry_dead on entry (dead_at)",
    "create table if not exists barrier (tag text primary key, hard integer not null, soft integer not null)",
    "create table if not exists told (number integer primary key autoincrement, origin text not null, "
    "action text not null, is_tag integer not null, target text not null, sequence integer not null)",
    "create table if not exists counter (one integer primary key check (one = 1), sequence integer not null)",
    "insert or ignore into counter values (1, 1)",
)
_TELL = "insert into told (origin, action, is_tag, target, sequence) values (?, ?, ?, ?, ?)"
_TOLD = "select number, origin, action, is_tag, target, sequence from told where number > ? order by number"
_PUT = "insert or replace into entry (key, raw, dead_at) values (?, ?, ?)"


class SqliteCache:
    """Implements `ports.cache.SharedCache` on one file."""

    name = "sqlite"
    is_remote = False

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._database = Database(path, clock=clock)
        self._origin = random_id()[:12]
        self._pruned_at = 0.0

    async def start(self) -> None:
        async with self._answering():
            try:
                await self._open()
            except StoreUnavailable as error:
                if "malformed" not in str(error) and "not a database" not in str(error):
                    raise
                await self._database.stop()
                aside = f"{self._path}.corrupt-{self._clock.now():%Y%m%dT%H%M%S}"
                _put_aside(self._path, aside)
                emit(CacheFileReplaced(path=str(self._path), aside=aside, error=str(error)))
                self._database = Database(self._path, clock=self._clock)
                await self._open()

    async def _open(self) -> None:
        await self._database.start()
        await self._database.write(lambda connection: [connection.execute(one) for one in _SCHEMA])

    async def close(self) -> None:
        await self._database.stop()

    async def sync(self) -> Barriers:
        def work(connection: sqlite3.Connection) -> Barriers:
            rows = connection.execute("select tag, hard, soft from barrier").fetchall()
            hard, soft = ({row[0]: row[place] for row in rows if row[place]} for place in (1, 2))
            return Barriers(_sequence(connection), hard, soft)

        return await self._read(work)

    async def read(self, keys: Sequence[str], seconds: float) -> Reading:
        def work(connection: sqlite3.Connection) -> Reading:
            now = self._clock.now().timestamp()
            return Reading([_raw(connection, key, now) for key in keys], _sequence(connection))

        return await self._read(work)

    async def write(self, writes: Sequence[Write]) -> Sequence[bool]:
        return await self._write(lambda connection: [self._put(connection, one) for one in writes])

    def _put(self, connection: sqlite3.Connection, one: Write) -> bool:
        now = self._clock.now().timestamp()
        if one.seen is None:
            connection.execute(_TELL, (self._origin, Action.REMOVE, 0, one.key, 0))
        else:
            raw = _raw(connection, one.key, now)
            if (NOTHING if raw is None else raw[:SEEN_BYTES]) != one.seen or now * 1000 > one.until_ms:
                return False
            for tag in ("*", *one.tags):
                row = connection.execute("select max(hard, soft) from barrier where tag = ?", (tag,)).fetchone()
                if row is not None and row[0] > one.sequence:
                    return False
        connection.execute(_PUT, (one.key, one.raw, now + one.seconds))
        return True

    async def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for one in invalidations:
                self._take_away(connection, one)

        await self._write(work)

    def _take_away(self, connection: sqlite3.Connection, one: Invalidation) -> None:
        sequence = 0
        if one.is_tag:
            connection.execute("update counter set sequence = sequence + 1")
            sequence = _sequence(connection)
            if connection.execute("select count(*) from barrier").fetchone()[0] >= BARRIERS_MAX:
                connection.execute("delete from barrier")
                connection.execute("insert into barrier values ('*', ?1, 0)", (sequence,))
            place = "hard" if one.action is Action.REMOVE else "soft"
            values = (one.target, *((sequence, 0) if one.action is Action.REMOVE else (0, sequence)))
            connection.execute(
                f"insert into barrier values (?, ?, ?) on conflict (tag) do update set {place} = excluded.{place}",
                values,
            )
        else:
            now, version = self._clock.now().timestamp(), bytes.fromhex(random_id())
            raw = _raw(connection, one.target, now)
            if one.action is Action.EXPIRE and raw is not None and raw[:1] == ENTRY:
                changed = ENTRY + version + bytes(8) + raw[SEEN_BYTES + 8 :]
                connection.execute("update entry set raw = ? where key = ?", (changed, one.target))
            else:
                connection.execute(_PUT, (one.target, TOMBSTONE + version, now + TOMBSTONE_SECONDS))
        connection.execute(_TELL, (self._origin, one.action, one.is_tag, one.target, sequence))

    async def listen(self, heard: Listener) -> None:
        last = await self._read(lambda connection: _last(connection))
        heard(Heard(None))
        while True:
            await self._clock.sleep(POLL_SECONDS)
            after = last
            rows = await self._read(lambda connection, after=after: connection.execute(_TOLD, (after,)).fetchall())  # type: ignore[misc]
            for number, origin, action, is_tag, target, sequence in rows:
                if number != last + 1:
                    heard(Heard(None))  # pruned before it was read
                elif origin != self._origin or is_tag:
                    heard(Heard(Invalidation(action=Action(action), target=target, is_tag=bool(is_tag)), sequence))
                last = number
            if self._clock.monotonic() - self._pruned_at > PRUNE_SECONDS:
                await self._write(self._prune)
                self._pruned_at = self._clock.monotonic()

    def _prune(self, connection: sqlite3.Connection) -> None:
        ended = "delete from entry where key in (select key from entry {} order by dead_at limit ?)"
        now = self._clock.now().timestamp()
        connection.execute(ended.format("where dead_at < ?"), (now, PRUNE_ROWS))
        (pages,), (size,) = (connection.execute(f"pragma {name}").fetchone() for name in ("page_count", "page_size"))
        (free,) = connection.execute("pragma freelist_count").fetchone()
        if (pages - free) * size > FILE_BYTES_MAX:
            connection.execute(ended.format(""), (10 * PRUNE_ROWS,))
        connection.execute("delete from told where number < (select max(number) from told) - ?", (TOLD_MAX,))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._answering():
            return await self._database.read(work)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._answering():
            return await self._database.write(work)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                yield
        except TimeoutError as error:
            raise CacheAway(f"{self._path}: no answer in {ANSWER_SECONDS:g} s", is_slow=True) from error
        except (SpoolproofError, sqlite3.Error, OSError) as error:
            raise CacheAway(str(error), is_full="full" in str(error)) from error


def _put_aside(path: Path, aside: str) -> None:
    for end in ("", "-wal", "-shm"):
        if (part := Path(f"{path}{end}")).exists():
            part.rename(f"{aside}{end}")


def _sequence(connection: sqlite3.Connection) -> int:
    return int(connection.execute("select sequence from counter").fetchone()[0])


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("select coalesce(max(number), 0) from told").fetchone()[0])


def _raw(connection: sqlite3.Connection, key: str, now: float) -> bytes | None:
    row = connection.execute("select raw from entry where key = ? and dead_at > ?", (key, now)).fetchone()
    return None if row is None else bytes(row[0])
