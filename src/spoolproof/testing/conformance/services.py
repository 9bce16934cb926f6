"""The contract of `ports.services.Services`, and whose outbox rows and dead letters are."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from spoolproof.ports.services import Block
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import IDS, make_dead_letter, make_message, make_outgoing
from spoolproof.testing.conformance._store import LEASE_SECONDS, StoreSuite, fence_for
from spoolproof.testing.conformance._wait import within


@pytest.mark.asyncio
class ServicesConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_a_service_keeps_its_block_and_no_two_share_a_shard(self, store: Store) -> None:
        """A row in a shared shard would be shipped to the other's exchange, confirmed and deleted."""
        shop, bank, again = [await store.services.claim(name) for name in ("shop", "bank", "shop")]

        assert shop == again
        assert not set(shop.shards) & set(bank.shards)
        assert {"shop": shop, "bank": bank} == dict(await store.services.all())

    async def test_the_first_service_has_the_shards_and_leases_of_the_earlier_release(self, store: Store) -> None:
        """During a rolling upgrade processes of both releases share the work, and the fences hold between them."""
        first = await store.services.claim("shop")

        assert (0, "outbox", "00") == (first.first, first.lease_kind, first.lease_names[0])

    async def test_many_that_start_at_once_get_one_block_each(self, store: Store) -> None:
        """A deploy starts every process of every service in the same second."""
        names = [f"service-{number % 5}" for number in range(20)]

        claimed = await within(asyncio.gather(*(store.services.claim(name) for name in names)))

        blocks = dict(await store.services.all())
        assert [blocks[name] for name in names] == claimed
        assert sorted(set(names)) == sorted(blocks)
        in_order = sorted(blocks.values(), key=lambda block: block.first)
        assert all(lower.shards.stop <= higher.first for lower, higher in pairwise(in_order))

    async def test_rows_are_written_to_the_block_of_whoever_claimed_last(self, store: Store) -> None:
        """With and without a transaction; each service sees what it has waiting and nothing of the other's."""
        shop = await _publish(store, "shop", 3)
        bank = await _publish(store, "bank", 1)

        assert (3, 1) == (await _waiting(store, shop), await _waiting(store, bank))
        assert 4 == (await store.outbox.backlog()).rows
        assert (
            shop.shards.start <= min(await _shards(store, shop)) <= max(await _shards(store, shop)) < shop.shards.stop
        )

    async def test_nobody_takes_the_leases_of_another_service(self, store: Store) -> None:
        """Also not when that service has no process left: it may have a broker nobody else can reach."""
        shop, bank = [await store.services.claim(name) for name in ("shop", "bank")]
        for block in (shop, bank):
            await store.leases.ensure(block.lease_kind, block.lease_names)

        taken = await store.leases.acquire(bank.lease_kind, IDS.uuid7(), 100, LEASE_SECONDS)

        assert sorted(bank.lease_names) == sorted(fence.name for fence in taken)
        assert {None} == {lease.owner for lease in await store.leases.status(shop.lease_kind)}

    async def test_a_replay_goes_out_through_the_service_that_gave_up(self, store: Store) -> None:
        """Whoever presses the button: the command line is no service, and a dashboard may be another."""
        shop = await store.services.claim("shop")
        letter = make_dead_letter(make_message(key="k"))
        await store.dead_letters.add(letter)
        await store.services.claim("bank")

        await store.dead_letters.replay(letter.id, "ann", "fixed")

        details = await store.dead_letters.get(letter.id)
        assert details is not None
        assert "shop" == details.record.service
        assert 1 == await _waiting(store, shop)

    async def test_a_row_given_up_on_is_replayed_by_its_own_service(self, store: Store) -> None:
        """As what a consumer gave up on."""
        await store.services.claim("shop")
        bank = await _publish(store, "bank", 1)
        (row,) = (await store.outbox.fetch(dict.fromkeys(bank.shards, 0), (), 10)).rows
        letter = make_dead_letter(row.outgoing.message, consumer="relay:events")
        assert await store.outbox.give_up(row.ref, letter, await fence_for(store, row.ref.shard))
        await store.services.claim("shop")

        await store.dead_letters.replay(letter.id, "ann", "fixed")

        assert [row.ref.shard] == await _shards(store, bank)

    async def test_a_dead_letter_of_nobody_is_replayed_from_the_first_block(self, store: Store) -> None:
        """The earlier release kept no name, and the first block is where its processes look."""
        letter = make_dead_letter()
        await store.dead_letters.add(letter)
        shop = await store.services.claim("shop")
        await store.services.claim("bank")

        await store.dead_letters.replay(letter.id, "ann", "fixed")

        assert 1 == await _waiting(store, shop)


async def _publish(store: Store, service: str, count: int) -> Block:
    block = await store.services.claim(service)
    if count:
        await store.outbox.append([make_outgoing() for _ in range(count - 1)], None)
        async with store.transaction() as tx:
            await store.outbox.append([make_outgoing()], tx)
    return block


async def _waiting(store: Store, block: Block) -> int:
    return (await store.outbox.backlog(block.shards)).rows


async def _shards(store: Store, block: Block) -> list[int]:
    page = await store.outbox.fetch(dict.fromkeys(block.shards, 0), (), 100)
    return [row.ref.shard for row in page.rows]
