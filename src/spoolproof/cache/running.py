"""One cache in a running process: its memory, its flights, and what was counted."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from typing import Any

from spoolproof.backoff import RandomSource
from spoolproof.cache.coder import Coder, is_immutable
from spoolproof.cache.envelope import pack, unpack
from spoolproof.cache.events import BYTES, ENTRIES, EVICTED, LOADS, RATIO, READS, REFUSED, STALE, UNSTORED
from spoolproof.cache.failover import Failover
from spoolproof.cache.memory import Kept, Memory
from spoolproof.cache.options import CacheOptions
from spoolproof.clock import Clock
from spoolproof.ids import random_id
from spoolproof.ports.broker import Spawn
from spoolproof.ports.cache import ENTRY, NOTHING, SEEN_BYTES, Action, CacheStats, Invalidation, Write
from spoolproof.telemetry.metrics import Measure

MEMORY = "memory"
JITTER = 0.1
SKEW_MS = 60_000  #: what was loaded this long from now has no known age: a clock was set back, and it is not fresh
WINDOW = 30  #: of ten seconds each: what the ratio is of
WINDOW_SECONDS = 10.0


class Flight:
    """What one task does for all who wait for a key.

    looked: the shared cache was asked. stale: what can be served if the load fails or lasts. is_void: something was
    invalidated since it began; its result reaches who waits, and is not stored.
    """

    __slots__ = ("done", "is_void", "looked", "stale")

    def __init__(self, stale: Kept | None) -> None:
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Outcome] = loop.create_future()
        self.looked: asyncio.Future[None] = loop.create_future()
        self.stale = stale
        self.is_void = False

    def void(self, action: Action) -> None:
        """Store nothing; after a removal, serve nothing old either."""
        self.is_void = True
        if action is Action.REMOVE:
            self.stale = None


class Outcome:
    """How a flight ended: an entry, or an error."""

    __slots__ = ("error", "kept", "reason", "source")

    def __init__(
        self, kept: Kept | None, source: str, *, reason: str | None = None, error: BaseException | None = None
    ) -> None:
        self.kept = kept
        self.source = source
        self.reason = reason
        self.error = error


class Running:
    """Implements `failover.Follower`."""

    def __init__(
        self, name: str, options: CacheOptions, failover: Failover, *, clock: Clock, random: RandomSource, spawn: Spawn
    ) -> None:
        self.name = name
        self.options = options
        self.failover = failover
        self.clock = clock
        self.now = clock.monotonic
        self.random = random
        self.spawn = spawn
        self.memory = Memory(options.entries_max, options.bytes_max)
        self.find, self.touch = self.memory.find, self.memory.touch
        self.generation = failover.generation
        self.flights: dict[str, Flight] = {}
        self.loads = 0
        self.memory_hits = 0  #: a plain count, because it is on the hot path
        self.turn = 0  #: of invalidations; who finds another one after an await puts nothing into memory
        self.setting: dict[str, Kept] = {}  #: what is on its way to the shared cache
        self.stats = CacheStats()
        self._window: deque[CacheStats] = deque(maxlen=WINDOW)
        self._sampled_at = -math.inf

    # --- entries -----------------------------------------------------------------------------------------------------

    def made(
        self, coder: Coder, value: Any, body: bytes, tags: tuple[str, ...], *, ttl: float | None = None, seq: int
    ) -> Kept:
        """Return an entry for a value that was loaded now."""
        options, now = self.options, self.now()
        ttl = ttl or (options.negative_ttl_seconds if value is None else options.ttl_seconds)
        ttl *= self.random.uniform(1.0, 1.0 + JITTER)
        return Kept(
            coder=coder,
            value=value,
            body=body,
            is_shareable=is_immutable(value),
            version=bytes.fromhex(random_id()),
            loaded_at=now,
            loaded_ms=self.wall_ms(),
            refresh_at=now + ttl * (1.0 if value is None else options.eager_ratio),
            fresh_until=now + ttl,
            dead_at=now + (ttl if value is None else max(ttl, options.stale_seconds)),
            sequence=seq,
            tags=tags,
            generation=self.generation,
        )

    def wall_ms(self) -> int:
        """Return the wall clock in milliseconds."""
        return int(self.clock.now().timestamp() * 1000)

    def raw_of(self, kept: Kept) -> bytes:
        """Return the bytes of an entry that was just made."""
        return pack(
            kept.body,
            version=kept.version,
            fingerprint=kept.coder.fingerprint,
            loaded_ms=kept.loaded_ms,
            fresh_ms=kept.loaded_ms + int((kept.fresh_until - kept.loaded_at) * 1000),
            dead_ms=kept.loaded_ms + int((kept.dead_at - kept.loaded_at) * 1000),
            sequence=kept.sequence,
            tags=kept.tags,
        )

    def write_of(self, key: str, kept: Kept, *, seen: bytes | None, until_ms: int = 0) -> Write:
        """Return what is written to the shared cache."""
        return Write(
            key=key,
            raw=self.raw_of(kept),
            seconds=kept.dead_at - kept.loaded_at,
            seen=seen,
            tags=kept.tags,
            sequence=kept.sequence,
            until_ms=until_ms,
        )

    def read_of(self, raw: bytes | None, coder: Coder) -> Kept | None:
        """Return the entry that some bytes of the shared cache are; None for what is gone, or nobody's."""
        found = None if raw is None else unpack(raw, coder.fingerprint, self.options.value_bytes_max)
        if found is None or raw is None:
            return None
        envelope, fresh_ms, body = found
        is_gone, is_stale = self.failover.bar(envelope.tags, envelope.sequence)
        wall, now = self.wall_ms(), self.now()
        if is_gone or envelope.dead_ms <= wall:
            return None
        try:
            value = coder.value_of(body)
        except Exception:  # bytes that fit the schema's name and not the schema
            return None
        options = self.options
        # by a clock that is wrong a value could be fresh for years
        is_of_age = envelope.loaded_ms <= wall + SKEW_MS
        left = min(max(0.0, (fresh_ms - wall) / 1000), options.ttl_seconds * (1 + JITTER)) if is_of_age else 0.0
        dead = min((envelope.dead_ms - wall) / 1000, options.stale_seconds)
        age = max(0.0, (wall - envelope.loaded_ms) / 1000)
        kept = Kept(
            coder=coder,
            value=value,
            body=body,
            is_shareable=is_immutable(value),
            version=raw[1:SEEN_BYTES],
            loaded_at=now - age,
            loaded_ms=envelope.loaded_ms,
            refresh_at=now + max(0.0, left - (1 - options.eager_ratio) * (left + age)),
            fresh_until=now + left,
            dead_at=now + dead,
            sequence=envelope.sequence,
            tags=envelope.tags,
            generation=self.generation,
        )
        if is_stale or not left:
            kept.expire()
        return kept

    def put(self, key: str, kept: Kept) -> None:
        """Keep an entry in memory; while what others do is not heard, it is not fresh for long."""
        if self.failover.shared is not None and not self.failover.is_shared:
            until = self.now() + self.options.coherence_seconds
            kept.fresh_until = min(kept.fresh_until, until)
            kept.refresh_at = min(kept.refresh_at, until)
        self.memory.put(key, kept)

    def usable(self, key: str, coder: Coder) -> Kept | None:
        """Return what memory has of a key, fresh or not."""
        kept = self.find(key)
        if kept is None or kept.coder is not coder:
            return None
        if kept.dead_at <= self.now():
            self.memory.drop(key)
            return None
        return kept

    def is_fresh(self, kept: Kept) -> bool:
        """Tell whether an entry may be handed out without a question."""
        return kept.generation == self.generation and self.now() < kept.fresh_until

    @staticmethod
    def seen_of(raw: bytes | None) -> bytes:
        """Return what a write names as found."""
        return NOTHING if raw is None else raw[:SEEN_BYTES]

    @staticmethod
    def is_tombstone(raw: bytes | None) -> bool:
        """Tell whether a key was removed."""
        return raw is not None and raw[:1] != ENTRY

    # --- invalidation ------------------------------------------------------------------------------------------------

    def heard(self, invalidation: Invalidation, sequence: int) -> None:
        """Take away from memory what another process has, or we have ourselves."""
        self.turn += 1
        action, target = invalidation.action, invalidation.target
        if not invalidation.is_tag:
            self._take(target, action)
            if (flight := self.flights.pop(target, None)) is not None:
                flight.void(action)
            return
        for key, kept in self.memory:
            if (target == "*" or target in kept.tags) and not (sequence and kept.sequence >= sequence):
                self._take(key, action)
        for flight in self.flights.values():
            flight.void(action)
        self.flights.clear()

    def _take(self, key: str, action: Action) -> None:
        kept = self.find(key)
        if kept is not None and action is Action.EXPIRE:
            kept.expire()
            kept.retry_at = 0.0
        else:
            self.memory.drop(key)

    async def invalidate(self, invalidations: list[Invalidation]) -> None:
        """Take away everywhere. Raises CacheUnavailable; memory has forgotten it even then."""
        for one in invalidations:
            self.heard(one, 0)
        try:
            await self.failover.invalidate(invalidations)
        finally:
            for one in invalidations:  # what was read meanwhile may be what was there before
                self.heard(one, 0)

    def doubt(self, generation: int) -> None:
        """Ask the shared cache first from now on; what is being loaded may have been removed meanwhile."""
        self.turn += 1
        self.generation = generation
        for flight in self.flights.values():
            flight.void(Action.REMOVE)
        self.flights.clear()

    def cap(self) -> None:
        """Let nothing be fresh for long."""
        until = self.now() + self.options.coherence_seconds
        for _, kept in self.memory:
            kept.fresh_until = min(kept.fresh_until, until)
            kept.refresh_at = min(kept.refresh_at, until)

    def forget(self) -> None:
        """Drop everything."""
        self.turn += 1
        self.memory.clear()

    # --- counts ------------------------------------------------------------------------------------------------------

    def count(self, level: str, is_hit: bool, number: int = 1) -> None:
        """Count reads of a level."""
        counts = self.stats.hits if is_hit else self.stats.misses
        counts[level] = counts.get(level, 0) + number

    def settled(self) -> CacheStats:
        """Return the counts as they are now."""
        found = self.stats.copied()
        found.hits[MEMORY] = found.hits.get(MEMORY, 0) + self.memory_hits
        return found

    def tidy(self) -> None:
        """Note the counts for the ratio, and drop what nobody may be served any more, a thousand at a time."""
        now = self.now()
        if now - self._sampled_at < WINDOW_SECONDS:
            return
        self._sampled_at = now
        self._window.append(self.settled())
        for key, _ in [(key, kept) for key, kept in self.memory if kept.dead_at <= now][:1000]:
            self.memory.drop(key)

    def measures(self) -> Iterable[Measure]:
        """Yield what was counted."""
        stats, before = self.settled(), (self._window[0] if self._window else CacheStats())
        for level in {*stats.hits, *stats.misses}:
            hits, misses = stats.hits.get(level, 0), stats.misses.get(level, 0)
            yield READS, (self.name, level, "hit"), hits
            yield READS, (self.name, level, "miss"), misses
            lately = hits - before.hits.get(level, 0), misses - before.misses.get(level, 0)
            if sum(lately):
                yield RATIO, (self.name, level), lately[0] / sum(lately)
        yield LOADS, (self.name, "done"), stats.loads - stats.errors
        yield LOADS, (self.name, "failed"), stats.errors
        yield STALE, (self.name,), stats.stale
        yield UNSTORED, (self.name,), stats.unstored
        yield REFUSED, (self.name,), stats.refused
        yield ENTRIES, (self.name,), len(self.memory)
        yield BYTES, (self.name,), self.memory.bytes
        yield EVICTED, (self.name,), self.memory.evicted
