"""The contract of `ports.inbox.Inbox`."""

from __future__ import annotations

import asyncio

import pytest

from spoolproof.ports.store import Store
from spoolproof.testing.conformance._store import StoreSuite, Undo, rolled_back
from spoolproof.testing.conformance._wait import holds_for, within


@pytest.mark.asyncio
class InboxConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_a_message_is_new_once_per_consumer(self, store: Store) -> None:
        """Effects once: also within one transaction, and without a word about other consumers."""
        async with store.transaction() as tx:
            first = await store.inbox.record(tx, "orders", "m1")
            same_transaction = await store.inbox.record(tx, "orders", "m1")
        async with store.transaction() as tx:
            later = await store.inbox.record(tx, "orders", "m1")
            other_consumer = await store.inbox.record(tx, "billing", "m1")
            other_message = await store.inbox.record(tx, "orders", "m2")

        assert (True, False, False) == (first, same_transaction, later)
        assert (True, True) == (other_consumer, other_message)

    async def test_what_was_recorded_under_the_earlier_releases_key_counts(self, store: Store) -> None:
        """What was handled before an upgrade and comes again after it has no second effect."""
        async with store.transaction() as tx:
            await store.inbox.record(tx, "orders", "bare")
        async with store.transaction() as tx:
            answers = [
                await store.inbox.record(tx, consumer, key, earlier)
                for consumer, key, earlier in (
                    ("orders", "k1", "bare"),
                    ("orders", "k2", "other"),
                    ("billing", "k1", "bare"),
                    ("orders", "k3", None),
                )
            ]

        assert [False, True, True, True] == answers
        assert await store.inbox.contains("orders", "k9", "bare")
        assert not await store.inbox.contains("orders", "k9", "other")

    async def test_a_rolled_back_handling_is_forgotten(self, store: Store) -> None:
        """A retry must not be mistaken for a duplicate: that would be a loss."""
        async with rolled_back(store) as tx:
            await store.inbox.record(tx, "orders", "m1")

        async with store.transaction() as tx:
            assert await store.inbox.record(tx, "orders", "m1")

    async def test_contains_sees_committed_handlings_only(self, store: Store) -> None:
        """The dead-letter path asks it; an open transaction may still roll back."""
        async with store.transaction() as tx:
            await store.inbox.record(tx, "orders", "m1")
            while_open = await store.inbox.contains("orders", "m1")

        assert not while_open
        assert await store.inbox.contains("orders", "m1")
        assert not await store.inbox.contains("billing", "m1")

    @pytest.mark.parametrize("first_commits", [True, False])
    async def test_a_concurrent_duplicate_waits_for_the_first_to_end(self, store: Store, first_commits: bool) -> None:
        """Answered at once it would be wrong half the time: the first may commit or roll back."""
        has_recorded, wants_to_record = asyncio.Event(), asyncio.Event()
        answers: list[bool] = []

        async def first() -> None:
            async with store.transaction() as tx:
                await store.inbox.record(tx, "orders", "m1")
                has_recorded.set()
                await wants_to_record.wait()
                await holds_for(lambda: not answers)
                if not first_commits:
                    raise Undo

        async def second() -> None:
            await has_recorded.wait()
            wants_to_record.set()
            async with store.transaction() as tx:
                answers.append(await store.inbox.record(tx, "orders", "m1"))

        ends = await within(asyncio.gather(first(), second(), return_exceptions=True))

        assert [not first_commits] == answers
        assert (None if first_commits else Undo) == (ends[0] if ends[0] is None else type(ends[0]))
        assert ends[1] is None

    async def test_ids_are_compared_exactly(self, store: Store) -> None:
        """Two producers may differ only in case or in a trailing space."""
        async with store.transaction() as tx:
            answers = [await store.inbox.record(tx, "orders", id) for id in ("a", "A", "a ", "ä", "a")]

        assert [True, True, True, True, False] == answers

    async def test_what_is_forgotten_is_new_again(self, store: Store) -> None:
        """A person sends it once more; under the key of an earlier release, too, and only for this consumer."""
        async with store.transaction() as tx:
            for consumer, key in (("orders", "m1"), ("billing", "m1"), ("orders", "old")):
                await store.inbox.record(tx, consumer, key)
        async with rolled_back(store) as tx:
            await store.inbox.forget(tx, "orders", "m1")
        assert await store.inbox.contains("orders", "m1")

        async with store.transaction() as tx:
            await store.inbox.forget(tx, "orders", "m1", "old")

        kept = [await store.inbox.contains(*one) for one in (("orders", "m1"), ("orders", "old"), ("billing", "m1"))]
        assert [False, False, True] == kept
