"""Whether the shared cache is used, and what happens to invalidations while it is not.

::

    shared ──(an error; five late answers; an invalidation it did not take; nothing heard)──► local
    local ──(it answers, is heard, and has done every invalidation that waits)──► shared

In `local` memory and loaders serve; nobody waits for the shared cache. Sets may be lost in that time, invalidations
may not: each is a row of the store's state table before its caller goes on, and whichever process of the service has
the shared cache first does it: this one, one that starts after a kill, or one that never lost it. The others read
these rows every 5 s and take the same from their memory, whether the shared cache is there or not. A row has a name
of its own, so that doing one never takes a later one along. Only when none is left is the shared cache read again; so
what was removed meanwhile is never found there.

What memory holds stays: it is what can be served. When the shared cache is back, all of it has to be confirmed there
before it is called fresh (`generation`); after an hour away, when tombstones have ended, it is dropped.

Two loops: the keeper, which brings it back and does what waits, and the listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from spoolproof.cache.events import CacheFull, CacheInvalidationsJoined, CacheLeft, CacheReturned
from spoolproof.clock import Clock
from spoolproof.errors import CacheUnavailable, StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.ports.cache import (
    TOMBSTONE_SECONDS,
    Action,
    Barriers,
    CacheAway,
    Heard,
    Invalidation,
    Reading,
    SharedCache,
    Write,
)
from spoolproof.ports.state import State
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

LATE_ANSWERS = 5
FULL_SECONDS = 5.0
PROBE_SECONDS = 1.0
KEPT_SECONDS = 5.0  #: how late what a process left behind is noticed
STORE_SECONDS = 2.0
FIRST_SECONDS = 1.0  #: a start waits so long for it
KEPT_MAX = 200  #: rows for one call; for more of them, one that removes the whole cache
PENDING_MAX = 10_000


class Follower(Protocol):
    """A cache of this process, as it is told what others do."""

    name: str

    def heard(self, invalidation: Invalidation, sequence: int) -> None:
        """Take something away from memory. sequence: nothing that is as new goes."""

    def doubt(self, generation: int) -> None:
        """Ask the shared cache before anything in memory is called fresh."""

    def cap(self) -> None:
        """Call nothing fresh for longer than `coherence_seconds` from now."""

    def forget(self) -> None:
        """Drop everything."""


def kind_of(service: str) -> str:
    """Return the kind of the rows that keep a service's invalidations."""
    return f"cache/{service}"


class Failover:
    """Implements the way to the shared cache. shared: None if memory is all there is."""

    def __init__(self, shared: SharedCache | None, state: State, service: str, *, clock: Clock, ids: Ids) -> None:
        self.shared = shared
        self.followers: dict[str, Follower] = {}
        self.is_shared = False
        self.is_heard = asyncio.Event()
        self.generation = 0
        self.error = ""
        self.pending: dict[str, Invalidation] = {}
        self.barriers = Barriers(0, {}, {})
        self._state = state
        self._kind = kind_of(service)
        self._clock = clock
        self._ids = ids
        self._folded = Folded(clock)
        self._late = 0
        self._full_until = 0.0
        self._left_at = clock.monotonic()
        self.changed_at = clock.now()  #: when it was last taken into use, or left
        self._is_open = False
        self._told: set[str] = set()
        self._rows_seen = False
        self._looked_at = 0.0

    @property
    def level(self) -> str:
        """The shared cache's word in metrics."""
        return "" if self.shared is None else self.shared.name

    # --- use ---------------------------------------------------------------------------------------------------------

    async def read(self, keys: Sequence[str], seconds: float) -> Reading | None:
        """Return what is there, or None: it is not asked now, or did not answer."""
        if self.shared is None or not self.is_shared:
            return None
        generation = self.generation
        try:
            reading = await self.shared.read(keys, seconds)
            if reading.sequence > self.barriers.sequence:
                found = await self.shared.sync()
                if found.sequence > self.barriers.sequence:  # another answer may have been here first
                    self.barriers = found
        except CacheAway as error:
            self._failed(error)
            return None
        self._late = 0
        # what was read before it was lost and found again may be what was removed in between
        return reading if self.is_shared and generation == self.generation else None

    async def write(self, writes: Sequence[Write]) -> Sequence[bool] | None:
        """Write; None if it is away or full, so that nothing may be there."""
        if self.shared is None or not self.is_shared or self._clock.monotonic() < self._full_until:
            return None
        try:
            return await self.shared.write(writes)
        except CacheAway as error:
            if error.is_full:
                self._full_until = self._clock.monotonic() + FULL_SECONDS
                self._folded.emit(CacheFull(shared=self.level, error=str(error), seconds=FULL_SECONDS))
            else:
                self._failed(error)
            return None

    async def invalidate(self, invalidations: Sequence[Invalidation], *, is_overwritten: bool = False) -> None:
        """Return once it is done in the shared cache, or kept until it is. Raises CacheUnavailable.

        is_overwritten: by a newer value in memory; then it is enough that a full Redis has dropped the older one.
        """
        if self.shared is None or not invalidations:
            return
        if self.is_shared:
            try:
                await self.shared.invalidate(invalidations)
                return
            except CacheAway as error:
                if is_overwritten and error.is_full:
                    return
                self.left(str(error))
        await self.keep(invalidations)

    def bar(self, tags: Sequence[str], sequence: int) -> tuple[bool, bool]:
        """Tell whether an entry is gone, and whether it is stale, by the barriers of its tags."""
        hard, soft = self.barriers.hard, self.barriers.soft
        names = ("*", *tags)
        is_gone = any(hard.get(tag, 0) > sequence for tag in names)
        return is_gone, is_gone or any(soft.get(tag, 0) > sequence for tag in names)

    # --- away and back -----------------------------------------------------------------------------------------------

    def _failed(self, error: CacheAway) -> None:
        if error.is_full:
            return  # as many questions as may be asked at once; it answers
        self._late = self._late + 1 if error.is_slow else LATE_ANSWERS
        if self._late >= LATE_ANSWERS:
            self.left(str(error))

    def left(self, error: str) -> None:
        """Use memory alone from now on."""
        self.error = error
        if self.is_shared:
            self.is_shared = False
            self._left_at, self.changed_at = self._clock.monotonic(), self._clock.now()
            for one in self.followers.values():
                one.cap()
        self._folded.emit(CacheLeft(shared=self.level, error=error))

    async def keep(self, invalidations: Sequence[Invalidation]) -> None:
        """Keep invalidations in the store. Raises CacheUnavailable; this process still does them, if it lives."""
        if len(invalidations) > KEPT_MAX:
            invalidations = self._joined(invalidations)
        rows = {str(self._ids.uuid7()): one for one in invalidations}
        self._told |= rows.keys()
        self.pending |= rows  # before anything is awaited: nobody reads the shared cache until they are done
        if len(self.pending) > PENDING_MAX:
            rows = {str(self._ids.uuid7()): one for one in self._joined(list(self.pending.values()))}
            self.pending = dict(rows)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                for name, one in rows.items():
                    await self._state.put(self._kind, name, msgspec.json.encode(one))
        except (StoreUnavailable, TimeoutError) as error:
            raise CacheUnavailable(
                f"{len(rows)} invalidations reached neither {self.level} ({self.error}) nor the store ({error}): "
                "they are done if this process lives until it is back; do them again if not"
            ) from error
        failpoint("cache.after_keep")

    def _joined(self, invalidations: Sequence[Invalidation]) -> list[Invalidation]:
        """Return one for each cache that stand for all of these."""
        names = {root_of(one.target) for one in invalidations}
        for name in names:
            emit(CacheInvalidationsJoined(cache=name, waiting=len(invalidations)))
        return [Invalidation(action=Action.REMOVE, target=name, is_tag=True) for name in names]

    async def open(self) -> None:
        """Get the shared cache ready, once. Raises CacheAway."""
        if self.shared is not None and not self._is_open:
            await self.shared.start()
            self._is_open = True

    async def come_back(self) -> None:
        """Use the shared cache again, if it answers and all that waits is done. Raises CacheAway, StoreUnavailable."""
        assert self.shared is not None
        if not self.is_heard.is_set():
            raise CacheAway(self.error or "not connected yet")
        done = 0
        self.barriers = await self.shared.sync()
        while True:
            waiting = dict(self.pending)
            try:
                waiting |= await self.kept()
            except StoreUnavailable:
                if not self._rows_seen:  # who was killed before us may have left some
                    raise
            await self._do(waiting)
            done += len(waiting)
            if not self.pending:
                break
        self.barriers = await self.shared.sync()
        self._late = 0
        away = self._clock.monotonic() - self._left_at
        if away > TOMBSTONE_SECONDS - 60:
            for one in self.followers.values():
                one.forget()
        self.doubt()
        self.is_shared, self.changed_at = True, self._clock.now()
        if self._folded.has_told(CacheLeft, self.level):
            self._folded.over(CacheLeft, self.level)
            emit(CacheReturned(shared=self.level, seconds=away, invalidations=done))

    async def look(self) -> None:
        """Take up what other processes have kept, now and then. Raises StoreUnavailable, CacheAway."""
        if self._clock.monotonic() - self._looked_at >= KEPT_SECONDS or (self.is_shared and self.pending):
            self._looked_at = self._clock.monotonic()
            waiting = await self.kept() | self.pending
            if self.is_shared:
                await self._do(waiting)

    async def kept(self) -> dict[str, Invalidation]:
        """Return what waits in the store, by row; memory forgets it at the first sight. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                rows = await self._state.all(self._kind)
        except TimeoutError as error:
            raise StoreUnavailable("the store does not answer") from error
        self._rows_seen = True
        found = {name: msgspec.json.decode(row.value, type=Invalidation) for name, row in rows.items()}
        for name in found.keys() - self._told:
            self._tell(found[name], 0)
        self._told = {*found, *self.pending}
        return found

    async def _do(self, waiting: Mapping[str, Invalidation]) -> None:
        if not waiting or self.shared is None:
            return
        await self.shared.invalidate(list(dict.fromkeys(waiting.values())))
        failpoint("cache.after_deliver")
        for name in waiting:
            self.pending.pop(name, None)
        with suppress(StoreUnavailable, TimeoutError):  # what stays is done again, which takes away nothing but a hit
            async with asyncio.timeout(STORE_SECONDS):
                for name in waiting:
                    await self._state.remove(self._kind, name)

    # --- hear --------------------------------------------------------------------------------------------------------

    def hear(self, heard: Heard) -> None:
        """Take over what another process did."""
        self.is_heard.set()
        one = heard.invalidation
        if one is None:
            self.doubt()
            return
        if one.is_tag and heard.sequence == self.barriers.sequence + 1:
            hard, soft = dict(self.barriers.hard), dict(self.barriers.soft)
            (hard if one.action is Action.REMOVE else soft)[one.target] = heard.sequence
            self.barriers = Barriers(heard.sequence, hard, soft)  # and nobody has to ask for all of them
        self._tell(one, heard.sequence)

    def _tell(self, one: Invalidation, sequence: int) -> None:
        names = list(self.followers) if one.target == "*" else [root_of(one.target)]
        for name in names:
            if name in self.followers:
                self.followers[name].heard(one, sequence)

    def doubt(self) -> None:
        """Let nothing in memory be called fresh before it was confirmed."""
        self.generation += 1
        for one in self.followers.values():
            one.doubt(self.generation)


def root_of(target: str) -> str:
    """Return the cache that a key or a tag belongs to."""
    for mark in ":#/":
        target = target.partition(mark)[0]
    return target


class Keeper(Loop):
    """Brings the shared cache back, and does what waits for it."""

    name = "cache.keeper"
    phase = Phase.STATE

    def __init__(self, failover: Failover, clock: Clock, prune: Callable[[], None]) -> None:
        self._failover = failover
        self._clock = clock
        self._prune = prune

    async def start(self) -> None:
        """Wait a moment for the shared cache."""
        if self._failover.shared is None:
            return
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                await self._failover.is_heard.wait()
                await self._failover.come_back()
        except (CacheAway, StoreUnavailable, TimeoutError) as error:
            self._failover.left(str(error) or "no answer yet")

    async def run_once(self) -> int:
        """Look once, then rest a second."""
        failover = self._failover
        if failover.shared is not None:
            try:
                await failover.look()
                if not failover.is_shared:
                    await failover.come_back()
            except CacheAway as error:
                failover.left(str(error))
            except StoreUnavailable as error:
                await self._without_store(error)
        self._prune()
        await self._clock.sleep(PROBE_SECONDS)
        return 0

    async def _without_store(self, error: StoreUnavailable) -> None:
        """Come back all the same, if it is known what a process that was killed before us may have kept."""
        failover = self._failover
        try:
            if not failover.is_shared:
                await failover.come_back()
        except CacheAway as away:
            failover.left(str(away))
        except StoreUnavailable:
            failover.left(f"the store, which may keep invalidations, is away: {error}")

    async def stop(self) -> None:
        """Close the shared cache."""
        if self._failover.shared is not None:
            await self._failover.shared.close()


class Listener(Loop):
    """Hears what other processes do."""

    name = "cache.listener"
    stall_seconds = None  # it waits for what may never come

    def __init__(self, failover: Failover, clock: Clock) -> None:
        self._failover = failover
        self._clock = clock

    async def start(self) -> None:
        """Open what is shared; what fails is tried again."""
        with suppress(CacheAway):
            await self._failover.open()

    async def run_once(self) -> int:
        """Listen until the connection is lost."""
        assert self._failover.shared is not None
        try:
            await self._failover.open()
            await self._failover.shared.listen(self._failover.hear)
        except CacheAway as error:
            self._failover.is_heard.clear()
            self._failover.left(str(error))
        await self._clock.sleep(PROBE_SECONDS)
        return 0
