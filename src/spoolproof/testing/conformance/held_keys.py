"""The contract of `ports.held_keys.HeldKeys`."""

from __future__ import annotations

import asyncio

from spoolproof.message import message_key
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.ports.held_keys import HeldKeys, Hold
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import make_dead_letter, make_message

QUEUE, KEY, MOST = "conf.steps", "ann", 3


class HeldKeysConformance:
    """Needs the fixture `store`: a started store with an empty schema."""

    def record(self) -> DeadLetterRecord:
        return make_dead_letter(message=make_message(key=KEY), consumer=QUEUE)

    async def begun(self, store: Store) -> tuple[HeldKeys, DeadLetterRecord]:
        keys, head = store.port(HeldKeys), self.record()
        await store.dead_letters.add(head)
        await keys.begin(QUEUE, KEY, message_key(head.message) or "")
        return keys, head

    async def state_of(self, store: Store, record: DeadLetterRecord) -> list[DeadLetterState]:
        wanted = DeadLetterFilter(message_id=record.message.id)
        return [one.state for one in await store.dead_letters.search(wanted)]

    async def test_a_message_is_held_only_behind_a_held_key(self, store: Store) -> None:
        keys = store.port(HeldKeys)
        free, behind = self.record(), self.record()

        assert Hold.FREE is await keys.hold_behind(free, MOST)
        _, head = await self.begun(store)
        assert Hold.HELD is await keys.hold_behind(behind, MOST)

        assert [] == await self.state_of(store, free)
        assert [DeadLetterState.HELD] == await self.state_of(store, behind)
        (key,) = await keys.all(QUEUE, 10)
        assert (QUEUE, KEY, head.id, 1) == (key.consumer, key.key, key.head, key.messages)

    async def test_held_messages_are_next_in_the_order_they_came(self, store: Store) -> None:
        keys, _ = await self.begun(store)
        held = [self.record() for _ in range(MOST)]
        for one in held:
            await keys.hold_behind(one, MOST)

        assert Hold.FULL is await keys.hold_behind(self.record(), MOST)
        for one in held:
            found = await keys.next(QUEUE, KEY)
            assert found is not None
            assert (one.id, one.message) == (found.id, found.message)
            await store.dead_letters.discard(one.id, "test", "gone")
        assert await keys.next(QUEUE, KEY) is None

    async def test_a_message_is_held_once_and_never_after_it_was_handled(self, store: Store) -> None:
        """A crash between the hold and the ack brings it again, and the head, too."""
        keys, head = await self.begun(store)
        once, handled = self.record(), self.record()
        async with store.transaction() as tx:
            await store.inbox.record(tx, QUEUE, message_key(handled.message) or "")

        for one in (once, once, handled, head):
            assert Hold.HELD is await keys.hold_behind(one, MOST)

        assert [DeadLetterState.HELD] == await self.state_of(store, once)
        assert [] == await self.state_of(store, handled)
        assert [DeadLetterState.OPEN] == await self.state_of(store, head)

    async def test_a_key_is_released_by_its_head_and_goes_when_nothing_is_left(self, store: Store) -> None:
        keys, head = await self.begun(store)
        behind = self.record()
        await keys.hold_behind(behind, MOST)
        before = await keys.released(QUEUE, 10)

        await store.dead_letters.discard(head.id, "test", "not needed")

        assert ([], [KEY]) == (list(before), list(await keys.released(QUEUE, 10)))
        async with store.transaction() as tx:
            assert not await keys.release(tx, QUEUE, KEY)
            assert await store.dead_letters.resolve(tx, QUEUE, behind.message)
            assert await keys.release(tx, QUEUE, KEY)
        assert not await keys.is_held(QUEUE, KEY)
        assert Hold.FREE is await keys.hold_behind(self.record(), MOST)

    async def test_an_arrival_is_held_or_comes_after_the_release(self, store: Store) -> None:
        """The last held message takes the row along; what arrives meanwhile waits for that."""
        keys, head = await self.begun(store)
        await store.dead_letters.discard(head.id, "test", "not needed")

        async with store.transaction() as tx:
            assert await keys.release(tx, QUEUE, KEY)
            arriving = asyncio.ensure_future(keys.hold_behind(self.record(), MOST))
            await asyncio.sleep(0)
            assert not arriving.done()

        assert Hold.FREE is await arriving
