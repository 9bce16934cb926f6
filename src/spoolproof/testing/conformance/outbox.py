"""The contract of `ports.outbox.Outbox`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.destination import destination_of
from spoolproof.errors import OutboxFull
from spoolproof.message import Message, Outgoing, shard_of
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.ports.outbox import RowRef
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import (
    CLOCK,
    make_dead_letter,
    make_message,
    make_outgoing,
    messages,
    round_trip_settings,
)
from spoolproof.testing.conformance._store import (
    StoreSuite,
    fence_for,
    ready_ids,
    ready_rows,
    rolled_back,
    stale_fence_for,
)
from spoolproof.testing.conformance._wait import eventually, within

_FAR_SECONDS = 600.0
# the last one is a newer release's: what this one does not know must stay what it is
_destinations = st.sampled_from(["events", "queue:orders", "exchange:legacy", "delay:60", "newer:kind"])


@pytest.mark.asyncio
class OutboxConformance(StoreSuite):
    """Needs the fixture `store`; `small_store` (its outbox takes 3 rows) adds the contract of the limit."""

    @pytest.fixture
    async def small_store(self) -> Store:
        """A started, migrated store whose outbox takes at most 3 rows."""
        pytest.skip("no small_store fixture: the adapter's limit is not tested here")

    async def test_rows_of_a_transaction_appear_when_it_commits_and_not_before(self, store: Store) -> None:
        """The row exists if and only if the business change does."""
        outgoing = make_outgoing()

        async with store.transaction() as tx:
            await store.outbox.append([outgoing], tx)
            before = await ready_ids(store)

        assert [] == before
        assert [outgoing.message.id] == await ready_ids(store)

    async def test_a_rollback_leaves_no_row(self, store: Store) -> None:
        """An event of a change that never happened would be a lie."""
        async with rolled_back(store) as tx:
            await store.outbox.append([make_outgoing()], tx)

        assert [] == await ready_ids(store)
        assert 0 == (await store.outbox.backlog()).rows

    async def test_a_cancelled_transaction_leaves_no_row(self, store: Store) -> None:
        """A request whose client went away must not half commit."""
        async with rolled_back(store, asyncio.CancelledError) as tx:
            await store.outbox.append([make_outgoing()], tx)

        assert [] == await ready_ids(store)

    async def test_an_append_without_transaction_is_committed_on_return(self, store: Store) -> None:
        """A Receipt is handed out on it."""
        outgoing = make_outgoing()

        await store.outbox.append([outgoing], None)

        assert [outgoing.message.id] == await ready_ids(store)

    async def test_appending_nothing_writes_nothing(self, store: Store) -> None:
        """A transaction that published nothing must not fail for it."""
        await store.outbox.append([], None)
        async with store.transaction() as tx:
            await store.outbox.append([], tx)

        assert 0 == (await store.outbox.backlog()).rows

    async def test_ids_of_one_key_are_in_publish_order(self, store: Store) -> None:
        """Order per key rests on it; one append, several appends and several transactions alike."""
        sent = [make_outgoing(key="k") for _ in range(9)]
        await store.outbox.append(sent[:3], None)
        async with store.transaction() as tx:
            await store.outbox.append(sent[3:5], tx)
            await store.outbox.append(sent[5:7], tx)
        await asyncio.gather(store.outbox.append(sent[7:8], None))
        await store.outbox.append(sent[8:], None)

        rows = await ready_rows(store)

        assert [outgoing.message.id for outgoing in sent] == [row.outgoing.message.id for row in rows]
        assert sorted({row.ref.id for row in rows}) == [row.ref.id for row in rows]
        assert 1 == len({row.ref.shard for row in rows})

    async def test_a_row_lives_in_the_shard_of_its_key(self, store: Store) -> None:
        """Publishers on every machine must agree on it, or two relays would ship one key."""
        sent = {outgoing.message.id: outgoing for outgoing in (make_outgoing(key=f"k{n}") for n in range(40))}
        await store.outbox.append(list(sent.values()), None)

        rows = await ready_rows(store)

        assert 40 == len(rows)
        assert all(row.ref.shard == shard_of(row.outgoing.message, store.services.own.size) for row in rows)

    async def test_fetch_returns_rows_above_the_cursor_in_id_order_up_to_the_limit(self, store: Store) -> None:
        """A relay reads on from where it was."""
        await store.outbox.append([make_outgoing(key="k") for _ in range(6)], None)
        everything = await ready_rows(store)
        shard, second = everything[1].ref.shard, everything[1].ref.id

        rest = (await store.outbox.fetch({shard: second}, (), 3)).rows

        assert [row.ref for row in everything[2:5]] == [row.ref for row in rest]

    async def test_the_limit_counts_per_shard_and_other_shards_are_left_out(self, store: Store) -> None:
        """A busy shard must not starve the others, and a relay sees only what it holds."""
        await store.outbox.append([make_outgoing(key=f"k{n}") for n in range(200)], None)
        cursors = dict.fromkeys(store.services.own.shards, 0)

        limited = (await store.outbox.fetch(cursors, (), 2)).rows
        only_first = (await store.outbox.fetch({0: 0}, (), 1000)).rows

        assert {2} == {sum(row.ref.shard == shard for row in limited) for shard in cursors}
        assert {0} == {row.ref.shard for row in only_first}
        assert [] == (await store.outbox.fetch({}, (), 10)).rows

    async def test_paused_destinations_and_pairs_are_left_out(self, store: Store) -> None:
        """A full queue or a missing binding stops its own messages and no others."""
        full = make_outgoing("a", destination="queue:full")
        unrouted = make_outgoing("a")
        fine = make_outgoing("b")
        await store.outbox.append([full, unrouted, fine], None)

        ready = await ready_ids(store, paused=["queue:full", "events a"])

        assert [fine.message.id] == ready

    async def test_skipped_rows_are_left_out(self, store: Store) -> None:
        """The relay names the rows it already has, so that they do not fill the limit."""
        await store.outbox.append([make_outgoing(key="k") for _ in range(3)], None)
        rows = await ready_rows(store)
        skip = {rows[0].ref.id, rows[1].ref.id}

        rest = (await store.outbox.fetch({rows[0].ref.shard: 0}, (), 1, skip)).rows

        assert [rows[2].ref] == [row.ref for row in rest]

    async def test_a_late_committer_is_found_by_a_scan_from_the_start(self, store: Store) -> None:
        """L27: its id may be lower than what was shipped; no cursor is final."""
        self.needs_overlap()
        late, early = make_outgoing(key="k"), make_outgoing(key="k")

        async with store.transaction() as tx:
            await store.outbox.append([late], tx)
            await store.outbox.append([early], None)
            seen = await ready_rows(store)

        assert [early.message.id] == [row.outgoing.message.id for row in seen]
        assert {early.message.id, late.message.id} == set(await ready_ids(store))

    async def test_a_page_sees_up_to_the_last_id_whatever_has_become_of_the_rows(self, store: Store) -> None:
        """A relay that reads on from there never looks again at what is gone."""
        await store.outbox.append([make_outgoing(key="k") for _ in range(6)], None)
        rows = await ready_rows(store)
        shard, last = rows[-1].ref.shard, rows[-1].ref.id
        await store.outbox.remove([row.ref for row in rows])

        await store.outbox.fetch({shard: 0}, (), 3)
        page = await store.outbox.fetch({shard: 0}, (), 3)

        assert ([], frozenset()) == (page.rows, page.unfinished)
        assert page.seen_to[shard] >= last

    async def test_a_full_page_sees_no_further_than_its_last_row(self, store: Store) -> None:
        """What comes after is read next time."""
        await store.outbox.append([make_outgoing(key="k") for _ in range(6)], None)
        rows = await ready_rows(store)
        shard = rows[0].ref.shard

        await store.outbox.fetch({shard: 0}, (), 3)
        page = await store.outbox.fetch({shard: 0}, (), 3)

        assert rows[2].ref.id == page.seen_to[shard]

    async def test_a_page_names_whoever_may_yet_commit_below_what_it_has_seen(self, store: Store) -> None:
        """Its cursor may pass them only if it remembers where it was."""
        self.needs_overlap()
        late, early = make_outgoing(key="k"), make_outgoing(key="k")

        async with store.transaction() as tx:
            await store.outbox.append([late], tx)
            await store.outbox.append([early], None)
            (row,) = await ready_rows(store)
            while_open = await store.outbox.fetch({row.ref.shard: 0}, (), 9)
        after = await store.outbox.fetch({row.ref.shard: 0}, (), 9)

        assert while_open.seen_to[row.ref.shard] >= row.ref.id
        assert 1 == len(while_open.unfinished)
        assert while_open.unfinished <= while_open.running
        assert not after.unfinished & while_open.unfinished
        assert [late.message.id, early.message.id] == [found.outgoing.message.id for found in after.rows]

    async def test_rows_behind_a_deferred_row_of_their_key_and_destination_wait(self, store: Store) -> None:
        """Order holds also while the first waits for its next attempt; nobody else waits."""
        head = make_outgoing(key="k")
        behind = make_outgoing(key="k")
        elsewhere = make_outgoing(key="k", destination="queue:other")
        other_key = make_outgoing(key="another")
        keyless = [make_outgoing(), make_outgoing()]
        await store.outbox.append([head, behind, elsewhere, other_key, *keyless], None)
        ref = await _ref_of(store, head)

        assert await store.outbox.defer(ref, _FAR_SECONDS, "returned", await fence_for(store, ref.shard))

        free = {outgoing.message.id for outgoing in (elsewhere, other_key, *keyless)}
        assert free == set(await ready_ids(store))

    async def test_a_deferred_keyless_row_holds_nobody(self, store: Store) -> None:
        """Without a key there is no order to keep."""
        first = make_outgoing()
        second = make_outgoing()
        await store.outbox.append([first, second], None)
        ref = await _ref_of(store, first)

        await store.outbox.defer(ref, _FAR_SECONDS, "returned", await fence_for(store, ref.shard))

        assert [second.message.id] == await ready_ids(store)

    async def test_a_deferred_row_is_ready_again_when_its_time_has_passed(self, store: Store) -> None:
        """With its attempt counted, by the database's clock, and only in the shards asked for."""
        head, behind = make_outgoing(key="k"), make_outgoing(key="k")
        await store.outbox.append([head, behind], None)
        ref = await _ref_of(store, head)
        every_shard = store.services.own.shards
        await store.outbox.defer(ref, 0.3, "returned", await fence_for(store, ref.shard))

        too_early = await store.outbox.promote_due(every_shard)
        promoted: list[RowRef] = []

        async def is_promoted() -> bool:
            promoted.extend(await store.outbox.promote_due(every_shard))
            return bool(promoted)

        await eventually(is_promoted)
        assert [] == list(too_early)
        assert [ref] == promoted
        rows = await ready_rows(store)
        assert [(head.message.id, 1), (behind.message.id, 0)] == [
            (row.outgoing.message.id, row.attempts) for row in rows
        ]

    async def test_promotion_leaves_other_shards_alone(self, store: Store) -> None:
        """A shard is worked by its holder only."""
        outgoing = make_outgoing()
        await store.outbox.append([outgoing], None)
        ref = await _ref_of(store, outgoing)
        await store.outbox.defer(ref, 0.0, "returned", await fence_for(store, ref.shard))

        others = [shard for shard in store.services.own.shards if shard != ref.shard]

        assert [] == list(await store.outbox.promote_due(others))
        await eventually(lambda: _promotes(store, ref))

    async def test_a_defer_under_a_stale_fence_does_nothing(self, store: Store) -> None:
        """S5: a relay frozen past its lease wakes up to refused writes."""
        outgoing = make_outgoing()
        await store.outbox.append([outgoing], None)
        ref = await _ref_of(store, outgoing)

        deferred = await store.outbox.defer(ref, _FAR_SECONDS, "late", await stale_fence_for(store, ref.shard))

        rows = await ready_rows(store)
        assert not deferred
        assert [(ref, 0)] == [(row.ref, row.attempts) for row in rows]

    async def test_a_defer_under_a_released_fence_does_nothing(self, store: Store) -> None:
        """Whoever gave the lease back may not write, also while nobody has taken it."""
        outgoing = make_outgoing()
        await store.outbox.append([outgoing], None)
        ref = await _ref_of(store, outgoing)
        fence = await fence_for(store, ref.shard)
        await store.leases.release([fence])

        assert not await store.outbox.defer(ref, _FAR_SECONDS, "late", fence)
        assert [outgoing.message.id] == await ready_ids(store)

    async def test_remove_forgets_rows_and_tells_how_many_were_there(self, store: Store) -> None:
        """A second remove of the same rows, after a take-over, is harmless."""
        await store.outbox.append([make_outgoing() for _ in range(3)], None)
        refs = [row.ref for row in await ready_rows(store)]

        first, again, none = await _removals(store, refs[:2], refs, [])

        assert (2, 1, 0) == (first, again, none)
        assert 0 == (await store.outbox.backlog()).rows

    async def test_removing_a_deferred_head_frees_its_key(self, store: Store) -> None:
        """A late confirm of a deferred row: it has arrived, so what is behind it may go."""
        head, behind = make_outgoing(key="k"), make_outgoing(key="k")
        await store.outbox.append([head, behind], None)
        ref = await _ref_of(store, head)
        await store.outbox.defer(ref, _FAR_SECONDS, "returned", await fence_for(store, ref.shard))

        await store.outbox.remove([ref])

        assert [behind.message.id] == await ready_ids(store)

    async def test_giving_up_moves_a_row_into_the_dead_letters(self, store: Store) -> None:
        """Exactly one of outbox and dead letters has it, and its key goes on."""
        head, behind = make_outgoing(key="k"), make_outgoing(key="k")
        await store.outbox.append([head, behind], None)
        ref = await _ref_of(store, head)
        fence = await fence_for(store, ref.shard)
        await store.outbox.defer(ref, _FAR_SECONDS, "returned", fence)
        letter = make_dead_letter(head.message, consumer="relay:events", destination="events", reason="unroutable")

        assert await store.outbox.give_up(ref, letter, fence)

        details = await store.dead_letters.get(letter.id)
        assert [behind.message.id] == await ready_ids(store)
        assert details is not None
        assert letter == details.record
        assert ["recorded"] == [entry.verb for entry in details.audit]

    async def test_giving_up_under_a_stale_fence_writes_nothing(self, store: Store) -> None:
        """The new holder may be shipping the row right now."""
        outgoing = make_outgoing()
        await store.outbox.append([outgoing], None)
        ref = await _ref_of(store, outgoing)
        letter = make_dead_letter(outgoing.message)

        given_up = await store.outbox.give_up(ref, letter, await stale_fence_for(store, ref.shard))

        assert not given_up
        assert [outgoing.message.id] == await ready_ids(store)
        assert await store.dead_letters.get(letter.id) is None

    async def test_giving_up_a_row_that_is_gone_writes_nothing(self, store: Store) -> None:
        """It was confirmed meanwhile: a dead letter would be a false alarm."""
        outgoing = make_outgoing()
        await store.outbox.append([outgoing], None)
        ref = await _ref_of(store, outgoing)
        fence = await fence_for(store, ref.shard)
        await store.outbox.remove([ref])

        assert not await store.outbox.give_up(ref, make_dead_letter(outgoing.message), fence)
        assert [] == list(await store.dead_letters.search(DeadLetterFilter()))

    async def test_giving_up_a_replay_reopens_its_dead_letter(self, store: Store) -> None:
        """One row per (consumer, message id), however often it fails."""
        message = make_message()
        letter = make_dead_letter(message, consumer="relay:events", destination="events")
        await store.dead_letters.add(letter)
        await store.dead_letters.replay(letter.id, "ann", "fixed")
        row = (await ready_rows(store))[0]
        again = make_dead_letter(message, consumer="relay:events", destination="events", error="still unroutable")

        assert await store.outbox.give_up(row.ref, again, await fence_for(store, row.ref.shard))

        found = list(await store.dead_letters.search(DeadLetterFilter()))
        assert [(letter.id, DeadLetterState.OPEN, "still unroutable", 1)] == [
            (record.id, record.state, record.error, record.replays) for record in found
        ]

    async def test_the_backlog_counts_rows_and_tells_the_age_of_the_oldest(self, store: Store) -> None:
        """Health and alarms read it."""
        empty = await store.outbox.backlog()
        outgoing = make_outgoing()
        await store.outbox.append([outgoing, make_outgoing()], None)
        ref = await _ref_of(store, outgoing)
        await store.outbox.defer(ref, _FAR_SECONDS, "returned", await fence_for(store, ref.shard))

        backlog = await store.outbox.backlog()

        assert (0, 0, None) == (empty.rows, empty.deferred, empty.oldest_at)
        assert (2, 1) == (backlog.rows, backlog.deferred)
        assert backlog.oldest_at is not None
        assert abs(CLOCK.now() - backlog.oldest_at) < timedelta(minutes=1)

    async def test_a_full_outbox_refuses_before_any_write(self, small_store: Store) -> None:
        """Nothing accepted is dropped, so at the limit nothing is accepted."""

        async def is_full() -> bool:
            try:
                await small_store.outbox.append([make_outgoing()], None)
            except OutboxFull:
                return True
            return False

        assert await small_store.outbox.has_room(3)
        assert not await small_store.outbox.has_room(4)
        await eventually(is_full, seconds=15.0)
        before = (await small_store.outbox.backlog()).rows
        with pytest.raises(OutboxFull) as raised:
            await small_store.outbox.append([make_outgoing(), make_outgoing()], None)
        with pytest.raises(OutboxFull):
            async with small_store.transaction() as tx:
                await small_store.outbox.append([make_outgoing()], tx)

        assert 3 == raised.value.maximum
        assert not await small_store.outbox.has_room(1)
        assert before == (await small_store.outbox.backlog()).rows

    @given(message=messages(), destination=_destinations, may_be_unrouted=st.booleans(), has_key=st.booleans())
    @round_trip_settings
    async def test_every_field_of_every_legal_message_comes_back_as_it_was(
        self, store: Store, message: Message, destination: str, may_be_unrouted: bool, has_key: bool
    ) -> None:
        """The outbox is a copy of the message, not an opinion on it."""
        outgoing = Outgoing(
            message=message,
            destination=destination_of(destination),
            routing_key="a.b" if has_key else None,
            may_be_unrouted=may_be_unrouted,
        )
        await store.outbox.append([outgoing], None)

        rows = await ready_rows(store)

        await store.outbox.remove([row.ref for row in rows])
        assert [outgoing] == [row.outgoing for row in rows]

    async def test_concurrent_appends_all_land(self, store: Store) -> None:
        """Publishers do not wait for each other, nor lose each other's rows."""
        sent = [make_outgoing(key=f"k{n % 5}") for n in range(50)]

        await within(asyncio.gather(*(store.outbox.append([outgoing], None) for outgoing in sent)))

        assert {outgoing.message.id for outgoing in sent} == set(await ready_ids(store))


async def _ref_of(store: Store, outgoing: Outgoing) -> RowRef:
    return next(row.ref for row in await ready_rows(store) if row.outgoing.message.id == outgoing.message.id)


async def _promotes(store: Store, ref: RowRef) -> bool:
    return ref in await store.outbox.promote_due([ref.shard])


async def _removals(store: Store, *batches: list[RowRef]) -> tuple[int, ...]:
    return tuple([await store.outbox.remove(refs) for refs in batches])
