"""The contract of `ports.cache.SharedCache`: what loses against what, whoever comes late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from spoolproof.clock import SystemClock
from spoolproof.ids import random_id
from spoolproof.ports.cache import (
    ENTRY,
    HEAD_BYTES,
    NOTHING,
    SEEN_BYTES,
    TOMBSTONE,
    Action,
    Heard,
    Invalidation,
    SharedCache,
    Write,
)
from spoolproof.testing.conformance._wait import eventually

Connect = Callable[[], Awaitable[SharedCache]]
"""Returns one more process's way to the same cache, started; the fixture closes it."""
SECONDS = 10.0


def an_entry(text: bytes = b"value") -> bytes:
    """Return an entry under a version of its own, fresh for long."""
    return ENTRY + bytes.fromhex(random_id()) + (2**40).to_bytes(8, "big") + text


def loaded(key: str, raw: bytes, seen: bytes = NOTHING, sequence: int = 0, tags: Sequence[str] = ()) -> Write:
    """Return the write of a load that had found `seen`."""
    until_ms = int((SystemClock().now().timestamp() + 60) * 1000)
    return Write(key=key, raw=raw, seconds=60, seen=seen, tags=tuple(tags), sequence=sequence, until_ms=until_ms)


def off(target: str, action: Action = Action.REMOVE, *, is_tag: bool = False) -> Invalidation:
    """Return what takes something away."""
    return Invalidation(action=action, target=target, is_tag=is_tag)


@pytest.mark.asyncio
class SharedCacheConformance:
    """Needs the fixture `connect`, to a cache that is empty or whose keys nobody else has."""

    async def test_what_was_loaded_counts_only_if_nothing_came_between(self, connect: Connect) -> None:
        """Two loads of one key, and the later writer loses: it had not seen the first."""
        cache, first, second = await connect(), an_entry(b"1"), an_entry(b"2")
        before = await cache.sync()

        assert [True] == list(await cache.write([loaded("k", first, sequence=before.sequence)]))
        assert [False] == list(await cache.write([loaded("k", second, sequence=before.sequence)]))
        renewed = loaded("k", second, first[:SEEN_BYTES], before.sequence)
        assert [True] == list(await cache.write([renewed]))
        assert [second, None] == list((await cache.read(["k", "other"], SECONDS)).found)

    async def test_a_set_counts_whatever_is_there(self, connect: Connect) -> None:
        cache, first, second = await connect(), an_entry(b"1"), an_entry(b"2")
        await cache.write([loaded("k", first, sequence=(await cache.sync()).sequence)])

        assert [True] == list(await cache.write([Write(key="k", raw=second, seconds=60)]))
        assert [second] == list((await cache.read(["k"], SECONDS)).found)

    async def test_a_removed_key_refuses_what_was_loaded_before(self, connect: Connect) -> None:
        """A load that began before the removal ends after it: what it has is what was removed."""
        here, there = await connect(), await connect()
        sequence = (await here.sync()).sequence
        await here.write([loaded("k", an_entry(), sequence=sequence)])
        (seen,) = (await there.read(["k"], SECONDS)).found
        assert seen is not None

        await here.invalidate([off("k"), off("never")])

        late = [loaded("k", an_entry(), seen[:SEEN_BYTES], sequence), loaded("never", an_entry(), sequence=sequence)]
        assert [False, False] == list(await there.write(late))
        tombstones = (await there.read(["k", "never"], SECONDS)).found
        assert [TOMBSTONE, TOMBSTONE] == [None if one is None else one[:1] for one in tombstones]
        anew = [loaded("k", an_entry(), (tombstones[0] or b"")[:SEEN_BYTES], sequence)]
        assert [True] == list(await there.write(anew))

    async def test_an_expired_key_is_there_and_not_fresh(self, connect: Connect) -> None:
        cache, raw = await connect(), an_entry()
        sequence = (await cache.sync()).sequence
        await cache.write([loaded("k", raw, sequence=sequence)])

        await cache.invalidate([off("k", Action.EXPIRE)])

        (found,) = (await cache.read(["k"], SECONDS)).found
        assert found is not None
        assert (ENTRY, bytes(8), raw[HEAD_BYTES:]) == (found[:1], found[SEEN_BYTES:HEAD_BYTES], found[HEAD_BYTES:])
        assert [False] == list(await cache.write([loaded("k", an_entry(), raw[:SEEN_BYTES], sequence)]))

    async def test_a_barrier_refuses_what_was_loaded_before_it(self, connect: Connect) -> None:
        """Taking a tag away touches no entry: its number is greater than theirs."""
        here, there = await connect(), await connect()
        before = await here.sync()

        await here.invalidate([off("t", is_tag=True), off("s", Action.EXPIRE, is_tag=True)])

        after = await there.sync()
        assert before.sequence < after.hard["t"] < after.soft["s"] <= after.sequence
        writes = [
            loaded("a", an_entry(), sequence=before.sequence, tags=["t"]),
            loaded("b", an_entry(), sequence=before.sequence, tags=["s"]),
            loaded("c", an_entry(), sequence=before.sequence, tags=["u"]),
            loaded("d", an_entry(), sequence=after.sequence, tags=["t", "s"]),
        ]
        assert [False, False, True, True] == list(await there.write(writes))
        assert after.sequence == (await here.read(["a"], SECONDS)).sequence

    async def test_a_write_that_comes_too_late_is_refused(self, connect: Connect) -> None:
        """The mark of a removal is kept for an hour; what is older than that may have missed one."""
        cache = await connect()
        late = Write(key="k", raw=an_entry(), seconds=60, seen=NOTHING, until_ms=1)

        assert [False] == list(await cache.write([late]))

    async def test_an_entry_ends_with_its_time(self, connect: Connect) -> None:
        cache = await connect()
        await cache.write([Write(key="k", raw=an_entry(), seconds=0.2)])

        async def is_gone() -> bool:
            return [None] == list((await cache.read(["k"], SECONDS)).found)

        await eventually(is_gone)

    async def test_many_are_written_and_read_in_order(self, connect: Connect) -> None:
        cache = await connect()
        entries = {f"k{n}": an_entry(str(n).encode()) for n in range(1203)}

        written = await cache.write([Write(key=key, raw=raw, seconds=60) for key, raw in entries.items()])

        assert [True] * 1203 == list(written)
        assert [*entries.values(), None] == list((await cache.read([*entries, "none"], SECONDS)).found)

    async def test_others_hear_what_is_taken_away_and_put(self, connect: Connect) -> None:
        """Whoever has it in memory must drop it; first of all it is told that something may have been missed."""
        here, there = await connect(), await connect()
        heard: list[Heard] = []
        listening = asyncio.ensure_future(there.listen(heard.append))
        try:
            await eventually(lambda: _is(bool(heard)))
            await here.invalidate([off("k"), off("t", Action.EXPIRE, is_tag=True)])
            await here.write([Write(key="p", raw=an_entry(), seconds=60)])
            await eventually(lambda: _is(len(heard) >= 4))
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

        assert Heard(None) == heard[0]
        told = [one for one in heard if one.invalidation is not None]
        assert [off("k"), off("t", Action.EXPIRE, is_tag=True), off("p")] == [one.invalidation for one in told]
        assert [0, (await here.sync()).soft["t"], 0] == [one.sequence for one in told]


async def _is(value: bool) -> bool:
    return value
