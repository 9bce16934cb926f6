"""Several keys at once: one question of the shared cache, one call of the loader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from spoolproof.cache.coder import Coder
from spoolproof.cache.memory import Kept
from spoolproof.cache.options import KEYS_MAX, LOAD_SECONDS
from spoolproof.cache.read import GRACE_SECONDS, LONG_SECONDS, Ask, Reader
from spoolproof.cache.running import MEMORY, Running
from spoolproof.errors import CacheValueInvalid, LimitReached
from spoolproof.ports.cache import NOTHING, Action, Invalidation, Served

Loader = Callable[[list[str]], Awaitable[Mapping[str, Any]]]


class Many:
    """Reads and writes several keys of one cache. named: the keys as they are kept → as they are asked for."""

    def __init__(self, running: Running) -> None:
        self._of = running
        self._reader = Reader(running)

    async def get(self, named: Mapping[str, str], coder: Coder) -> dict[str, Any]:
        """Return what is fresh, by the key asked for."""
        fresh, _, _ = await self._look(named, coder)
        return {named[full]: kept.copy() for full, kept in fresh.items()}

    async def one(self, full: str, coder: Coder) -> Kept | None:
        """Return what is fresh of one key; as `get`, without what several need."""
        of, failover = self._of, self._of.failover
        kept = of.usable(full, coder)
        is_fresh = kept is not None and of.is_fresh(kept)
        of.count(MEMORY, is_fresh)
        if is_fresh:
            return kept
        turn = of.turn
        reading = await failover.read((full,), LONG_SECONDS)
        if reading is None:
            return None
        raw = reading.found[0]
        found = of.read_of(raw, coder)
        is_hit = found is not None and of.now() < found.fresh_until
        of.count(failover.level, is_hit)
        if of.is_tombstone(raw):
            of.memory.drop(full)
        elif found is not None and turn == of.turn:
            of.put(full, found)
        return found if is_hit else None

    async def _look(
        self, named: Mapping[str, str], coder: Coder
    ) -> tuple[dict[str, Kept], dict[str, Kept], tuple[dict[str, bytes], int] | None]:
        """Return what is fresh, what is stale, and, if the shared cache was asked, what was seen there and when."""
        of, failover = self._of, self._of.failover
        if len(named) > KEYS_MAX:
            raise LimitReached(len(named), KEYS_MAX, "keys at once; ask in portions")
        fresh: dict[str, Kept] = {}
        stale: dict[str, Kept] = {}
        for full in named:
            kept = of.usable(full, coder)
            if kept is not None:
                (fresh if of.is_fresh(kept) else stale)[full] = kept
        rest = [full for full in named if full not in fresh]
        of.count(MEMORY, True, len(fresh))
        of.count(MEMORY, False, len(rest))
        turn = of.turn
        reading = await failover.read(rest, LONG_SECONDS) if rest else None
        if reading is None:
            return fresh, stale, None
        seen: dict[str, bytes] = {}
        for full, raw in zip(rest, reading.found, strict=True):
            seen[full] = of.seen_of(raw)
            found = of.read_of(raw, coder)
            if of.is_tombstone(raw) or (full in stale and failover.bar(stale[full].tags, stale[full].sequence)[0]):
                stale.pop(full, None)
                of.memory.drop(full)
            is_hit = found is not None and of.now() < found.fresh_until
            of.count(failover.level, is_hit)
            if found is None:
                continue
            (fresh if is_hit else stale)[full] = found
            if turn == of.turn:
                of.put(full, found)
        return fresh, stale, (seen, reading.sequence)

    async def last_good(self, full: str, coder: Coder) -> Served[Any] | None:
        """Return what there is of one key, fresh or not."""
        of = self._of
        mine = of.usable(full, coder)
        fresh, stale, _ = await self._look({full: full}, coder)
        kept = fresh.get(full) or stale.get(full)
        if kept is None:
            return None
        of.stats.stale += full not in fresh
        return Served(
            value=kept.copy(),
            fresh=full in fresh,
            age_seconds=max(0.0, of.now() - kept.loaded_at),
            source=MEMORY if kept is mine else of.failover.level,
        )

    async def keeping(self, full: str, tags: tuple[str, ...], coder: Coder) -> Callable[[Any], Awaitable[None]] | None:
        """Return what keeps a value loaded from now on, unless it is taken away meanwhile; None with a fresh one."""
        of = self._of
        turn = of.turn
        fresh, _, asked = await self._look({full: full}, coder)
        if fresh:
            return None
        until_ms = of.wall_ms() + int((LOAD_SECONDS + GRACE_SECONDS) * 1000)

        async def keep(value: Any) -> None:
            await self._store({full: full}, {full: value}, asked, (tags, coder), until_ms, turn)

        return keep

    async def get_or_load(
        self, named: Mapping[str, str], load: Loader, tags: tuple[str, ...], coder: Coder
    ) -> dict[str, Any]:
        """Return what is fresh, and what one call of the loader gives of the rest; or, if it fails, what is stale."""
        of = self._of
        turn = of.turn
        fresh, stale, asked = await self._look(named, coder)
        found = {named[full]: kept.copy() for full, kept in fresh.items()}
        missing = {full: key for full, key in named.items() if full not in fresh}
        if not missing:
            return found
        until_ms = of.wall_ms() + int((LOAD_SECONDS + GRACE_SECONDS) * 1000)
        ask = Ask("", "", lambda: load(list(missing.values())), tags, coder)
        try:
            loaded = await self._reader.load(ask)
        except Exception as error:
            if turn != of.turn or not stale or isinstance(error, of.options.no_fallback):
                raise
            of.stats.stale += len(stale)
            return found | {named[full]: kept.copy() for full, kept in stale.items()}
        await self._store(missing, loaded, asked, (tags, coder), until_ms, turn)
        return found | {key: loaded[key] for key in missing.values() if key in loaded}

    async def _store(
        self,
        missing: Mapping[str, str],
        loaded: Mapping[str, Any],
        asked: tuple[dict[str, bytes], int] | None,
        how: tuple[tuple[str, ...], Coder],
        until_ms: int,
        turn: int,
    ) -> None:
        of, (tags, coder) = self._of, how
        sequence = of.failover.barriers.sequence if asked is None else asked[1]
        made: dict[str, Kept] = {}
        for full, key in missing.items():
            value = loaded.get(key)
            if key not in loaded or (value is None and not of.options.negative_ttl_seconds):
                continue
            try:
                made[full] = self._made(value, tags, coder, None, sequence)
            except CacheValueInvalid:
                of.stats.unstored += 1
        answers: Sequence[bool] | None = None
        if asked is not None and turn == of.turn:
            seen = asked[0]
            writes = [
                of.write_of(full, kept, seen=seen.get(full, NOTHING), until_ms=until_ms) for full, kept in made.items()
            ]
            answers = await of.failover.write(writes)
        if turn != of.turn:
            of.stats.refused += len(made)
            return
        for (full, kept), is_stored in zip(made.items(), answers or [True] * len(made), strict=True):
            if is_stored:
                of.put(full, kept)
            else:
                of.stats.refused += 1

    def _made(self, value: Any, tags: tuple[str, ...], coder: Coder, ttl: float | None, sequence: int) -> Kept:
        body = coder.checked(value)
        if len(body) > self._of.options.value_bytes_max:
            raise CacheValueInvalid(
                f"a value of {len(body)} bytes; at most {self._of.options.value_bytes_max}: raise value_bytes_max, or "
                "keep it in a table"
            )
        return self._of.made(coder, value, body, tags, ttl=ttl, seq=sequence)

    async def set(self, values: Mapping[str, Any], tags: tuple[str, ...], coder: Coder, ttl: float | None) -> None:
        """Put values. Raises CacheValueInvalid before anything is written, CacheUnavailable."""
        of = self._of
        if len(values) > KEYS_MAX:
            raise LimitReached(len(values), KEYS_MAX, "values at once; put them in portions")
        sequence = of.failover.barriers.sequence
        made = {full: self._made(value, tags, coder, ttl, sequence) for full, value in values.items()}
        removals = [Invalidation(action=Action.REMOVE, target=full) for full in made]
        is_contested = any(full in of.setting for full in made)  # the shared cache decides whose is the last
        of.setting.update(made)
        for one in removals:  # what is being loaded is older than this
            of.heard(one, 0)
        turn = of.turn
        try:
            answers = await of.failover.write([of.write_of(full, kept, seen=None) for full, kept in made.items()])
            if answers is None:
                await of.failover.invalidate(removals, is_overwritten=True)  # what is there is older, too
        finally:
            for full in made:
                of.setting.pop(full, None)
                of.memory.drop(full)
        if turn == of.turn and not is_contested:
            for full, kept in made.items():
                of.put(full, kept)
