"""The one way of a read: memory, then one flight for each key, whoever asks and however many.

A flight asks the shared cache, and loads if nothing fresh is there. Who waits does so for a limited time: shortly if
there is a stale value to serve, for `hard_timeout_seconds` if not. The flight itself goes on, also when all who waited
have left; what it brings is stored if nothing was invalidated since it began, here or anywhere. After 30 s the loader
is cancelled; one that ignores it is left alone, and its key is free.

A load that fails is answered by the newest stale value, with its age and the reason, and not tried again for a while.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from inspect import isawaitable
from typing import Any, TypeVar

from spoolproof.cache.coder import Coder
from spoolproof.cache.events import LoaderStuck, LoadFailed
from spoolproof.cache.memory import Kept
from spoolproof.cache.options import LOAD_SECONDS, check_key
from spoolproof.cache.running import MEMORY, Flight, Outcome, Running
from spoolproof.caught import before, error_line, is_failure, tame
from spoolproof.clock import is_replaced
from spoolproof.errors import BulkheadFull, CacheRecursion, CacheValueInvalid, NotStarted
from spoolproof.ports.cache import Action, Invalidation, Served
from spoolproof.telemetry.folding import Folded

T = TypeVar("T")

Load = Callable[[], Awaitable[Any] | Any]

SHORT_SECONDS = 0.1  #: for the shared cache with a stale value at hand
LONG_SECONDS = 0.5
GRACE_SECONDS = 5.0

_loading: ContextVar[tuple[str, ...]] = ContextVar("spoolproof.cache.loading", default=())


class Ask:
    """What is asked for: full key, user's key, loader, tags, and how values are coded."""

    __slots__ = ("coder", "key", "load", "name", "tags", "ttl")

    def __init__(
        self, key: str, name: str, load: Load, tags: tuple[str, ...], coder: Coder, ttl: float | None = None
    ) -> None:
        self.key = key
        self.name = name
        self.load = load
        self.tags = tags
        self.coder = coder
        self.ttl = ttl


class Reader:
    """Reads one cache."""

    def __init__(self, running: Running) -> None:
        self._of = running
        self._folded = Folded(running.clock)

    async def fetch(self, ask: Ask) -> Served[Any]:
        """Return a value and where it is from. Raises the loader's error, TimeoutError, BulkheadFull, CacheRecursion,
        CacheKeyInvalid."""
        of = self._of
        check_key(ask.name)
        kept = of.usable(ask.key, ask.coder)
        if kept is not None:
            now = of.now()
            if of.is_fresh(kept):
                of.count(MEMORY, True)
                of.touch(ask.key)
                if now >= kept.refresh_at and now >= kept.retry_at and ask.key not in of.flights:
                    self._start(ask, kept)
                return self._served(kept, MEMORY)
            if now < kept.retry_at and kept.generation == of.generation:
                return self._served(kept, MEMORY, "throttled")
        of.count(MEMORY, False)
        if ask.key in _loading.get():
            raise CacheRecursion(f"cache {of.name!r}: the loader of {ask.name!r} asks for {ask.name!r}")
        flight = of.flights.get(ask.key) or self._start(ask, kept)
        if flight.stale is None:
            await asyncio.wait({flight.looked}, timeout=of.options.hard_timeout_seconds)
        limit = of.options.hard_timeout_seconds if flight.stale is None else of.options.soft_timeout_seconds
        await asyncio.wait({flight.done}, timeout=limit)
        return self._landed(ask, flight, limit)

    def _landed(self, ask: Ask, flight: Flight, limit: float) -> Served[Any]:
        if not flight.done.done():
            if flight.stale is not None:
                return self._served(flight.stale, MEMORY, "timeout")
            raise TimeoutError(f"cache {self._of.name!r}: no value of {ask.name!r} in {limit:g} s")
        outcome = flight.done.result()
        if outcome.error is not None:
            raise outcome.error
        assert outcome.kept is not None
        return self._served(outcome.kept, outcome.source, outcome.reason)

    def _served(self, kept: Kept, source: str, reason: str | None = None) -> Served[Any]:
        of = self._of
        now = of.now()
        is_fresh = reason is None
        if not is_fresh:
            of.stats.stale += 1
        return Served(
            value=kept.copy(), fresh=is_fresh, age_seconds=max(0.0, now - kept.loaded_at), source=source, reason=reason
        )

    # --- flights -----------------------------------------------------------------------------------------------------

    def _start(self, ask: Ask, stale: Kept | None) -> Flight:
        flight = self._of.flights[ask.key] = Flight(stale)
        self._spawn(self._fly(ask, flight), "cache.flight", ask)
        return flight

    def _spawn(self, work: Any, name: str, ask: Ask) -> asyncio.Task[None]:
        # of whoever asked first nothing is inherited: not his transaction, not his deadline
        context = copy_context() if is_replaced() else Context()
        context.run(_loading.set, (*_loading.get(), ask.key))
        task: asyncio.Task[None] = context.run(partial(self._of.spawn, work, name))
        return task

    async def _fly(self, ask: Ask, flight: Flight) -> None:
        then = before()
        outcome = Outcome(None, "", error=NotStarted("the service was stopped while the value was loaded"))
        try:
            outcome = await self._find(ask, flight)
        except BaseException as error:
            if not is_failure(error, then):
                raise
            outcome = Outcome(None, "loader", error=tame(error))
        finally:
            if self._of.flights.get(ask.key) is flight:
                del self._of.flights[ask.key]
            for future, result in ((flight.looked, None), (flight.done, outcome)):
                if not future.done():
                    future.set_result(result)  # type: ignore[arg-type]

    async def _find(self, ask: Ask, flight: Flight) -> Outcome:
        """Ask the shared cache, then the loader."""
        of, failover = self._of, self._of.failover
        mine = flight.stale
        reading = await failover.read([ask.key], LONG_SECONDS if mine is None else SHORT_SECONDS)
        raw = None if reading is None else reading.found[0]
        if reading is not None and failover.shared is not None:
            found = of.read_of(raw, ask.coder)
            if of.is_tombstone(raw) or (mine is not None and failover.bar(mine.tags, mine.sequence)[0]):
                of.memory.drop(ask.key)
                flight.stale = mine = None
            if found is not None and mine is not None and not _replaces(found, mine, of.generation):
                found = None
            is_hit = found is not None and of.now() < found.fresh_until
            of.count(failover.level, is_hit)
            if found is not None and not flight.is_void:
                of.put(ask.key, found)
                flight.stale = found
            elif mine is not None:
                mine.generation = of.generation
            if is_hit:
                return Outcome(found, failover.level)
        if not flight.looked.done():
            flight.looked.set_result(None)
        return await self._load(ask, flight, None if reading is None else (of.seen_of(raw), reading.sequence))

    async def _load(self, ask: Ask, flight: Flight, seen: tuple[bytes, int] | None) -> Outcome:
        of, options = self._of, self._of.options
        if of.loads >= options.loads_max:
            if flight.stale is not None:
                return Outcome(flight.stale, MEMORY, reason="shed")
            raise BulkheadFull(policy=f"cache.{of.name}", running=of.loads, queued=0)
        until_ms = of.wall_ms() + int((LOAD_SECONDS + GRACE_SECONDS) * 1000)
        then = before()
        try:
            value = await self.load(ask)
        except BaseException as error:
            if not is_failure(error, then):
                raise
            return await self._failed(ask, flight, tame(error))
        return await self._store(ask, flight, value, seen, until_ms)

    async def load(self, ask: Ask) -> Any:
        """Return what the loader returns within its deadline. Raises its error, TimeoutError."""
        of, is_done = self._of, False
        of.loads += 1
        of.stats.loads += 1
        try:
            value = await self._called(ask)
            is_done = True
            return value
        finally:
            of.loads -= 1
            of.stats.errors += not is_done

    async def _called(self, ask: Ask) -> Any:
        ended: list[tuple[Any, BaseException | None]] = []

        async def call() -> None:
            then = before()
            try:
                found = ask.load()
                ended.append((await found if isawaitable(found) else found, None))
            except BaseException as error:
                if not is_failure(error, then):
                    raise
                ended.append((None, error))

        task = self._spawn(call(), "cache.load", ask)
        try:
            await asyncio.wait({task}, timeout=LOAD_SECONDS)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE_SECONDS)
                if not task.done():
                    self._folded.emit(LoaderStuck(cache=self._of.name))
                raise TimeoutError(f"cache {self._of.name!r}: the loader was cancelled after {LOAD_SECONDS:g} s")
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not ended:
            raise TimeoutError(f"cache {self._of.name!r}: the loader was cancelled")
        value, error = ended[0]
        if error is not None:
            raise error
        return value

    async def _store(
        self, ask: Ask, flight: Flight, value: Any, seen: tuple[bytes, int] | None, until_ms: int
    ) -> Outcome:
        of = self._of
        sequence = of.failover.barriers.sequence if seen is None else seen[1]
        try:
            body = ask.coder.checked(value)
            if len(body) > of.options.value_bytes_max:
                raise CacheValueInvalid(f"{len(body)} bytes, at most {of.options.value_bytes_max}")
        except CacheValueInvalid as error:
            of.stats.unstored += 1
            self._folded.emit(LoadFailed(cache=of.name, served="the value, not stored", error=error_line(error)))
            return Outcome(_Unstored(of.made(ask.coder, None, b"", ask.tags, seq=sequence), value), "loader")
        kept = of.made(ask.coder, value, body, ask.tags, ttl=ask.ttl, seq=sequence)
        outcome = Outcome(kept, "loader")
        if value is None and not of.options.negative_ttl_seconds:
            return outcome
        turn = of.turn
        answers = None
        if seen is not None and not flight.is_void:
            answers = await of.failover.write([of.write_of(ask.key, kept, seen=seen[0], until_ms=until_ms)])
        if flight.is_void or (answers is not None and not answers[0]):
            of.stats.refused += 1
        elif turn == of.turn:
            of.put(ask.key, kept)
        return outcome

    async def _failed(self, ask: Ask, flight: Flight, error: BaseException) -> Outcome:
        of = self._of
        if isinstance(error, of.options.no_fallback):
            await of.invalidate([Invalidation(action=Action.REMOVE, target=ask.key)])
            raise error
        stale = flight.stale
        served = "an error" if stale is None else "a stale value"
        self._folded.emit(LoadFailed(cache=of.name, served=served, error=error_line(error)))
        if stale is None:
            raise error
        stale.retry_at = of.now() + of.options.retry_throttle_seconds * of.random.uniform(0.8, 1.2)
        return Outcome(stale, MEMORY, reason="timeout" if isinstance(error, TimeoutError) else "error")


def _replaces(found: Kept, mine: Kept, generation: int) -> bool:
    """Tell whether an entry of the shared cache takes the place of the one in memory.

    While all that others do was heard, the one loaded last does. After a gap the shared one does whatever its age: ours
    may have been removed, and moments of two machines cannot be compared.
    """
    if mine.generation != generation:
        return True
    return found.version != mine.version and found.loaded_ms > mine.loaded_ms


class _Unstored(Kept):
    """A value that has no bytes: each caller gets a copy, as far as it can be copied."""

    __slots__ = ("_given",)

    def __init__(self, of: Kept, value: Any) -> None:
        for name in Kept.__slots__:
            setattr(self, name, getattr(of, name))
        self._given = value

    def copy(self) -> Any:
        with suppress(Exception):
            return copy.deepcopy(self._given)
        return self._given
