"""The contract of `ports.dead_letters.DeadLetters`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given

from spoolproof.message import REPLAY_NO, REPLAY_OF, Message
from spoolproof.ports.dead_letters import Attempt, DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import (
    CLOCK,
    IDS,
    make_dead_letter,
    make_message,
    messages,
    round_trip_settings,
)
from spoolproof.testing.conformance._store import StoreSuite, ready_ids, ready_rows, rolled_back
from spoolproof.testing.conformance._wait import within

OPEN, REPLAYING = DeadLetterState.OPEN, DeadLetterState.REPLAYING
RESOLVED, DISCARDED = DeadLetterState.RESOLVED, DeadLetterState.DISCARDED


async def _state(store: Store, id: str) -> DeadLetterState:
    return (await _record(store, id)).state


async def _record(store: Store, id: str) -> DeadLetterRecord:
    details = await store.dead_letters.get(id)
    assert details is not None
    return details.record


async def _verbs(store: Store, id: str) -> list[tuple[str, str, str]]:
    details = await store.dead_letters.get(id)
    assert details is not None
    return [(entry.verb, entry.actor, entry.detail) for entry in details.audit]


async def _resolve(store: Store, record: DeadLetterRecord) -> bool:
    async with store.transaction() as tx:
        return await store.dead_letters.resolve(tx, record.consumer, record.message)


@pytest.mark.asyncio
class DeadLettersConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_a_dead_letter_comes_back_as_it_was_kept(self, store: Store) -> None:
        """It is all an operator has; its first audit row says when it was recorded."""
        record = make_dead_letter(make_message(key="k", headers={"h-a": 1}), routing_key="a.b")

        assert await store.dead_letters.add(record)

        details = await store.dead_letters.get(record.id)
        assert details is not None
        assert record == details.record
        assert ["recorded"] == [entry.verb for entry in details.audit]
        assert abs(CLOCK.now() - details.audit[0].at) < timedelta(minutes=1)

    @given(message=messages())
    @round_trip_settings
    async def test_every_legal_message_is_kept_as_it_was(self, store: Store, message: Message) -> None:
        """A replay sends exactly these bytes."""
        record = make_dead_letter(message)

        await store.dead_letters.add(record)

        assert message == (await _record(store, record.id)).message

    async def test_a_second_failure_of_the_same_message_updates_the_row(self, store: Store) -> None:
        """One row per (consumer, message id): the history is in it, not beside it."""
        first = make_dead_letter()
        later = first.last_failed_at + timedelta(seconds=5)
        second = replace(
            make_dead_letter(first.message, failed_at=later),
            reason="expired",
            fingerprint="fedcba9876543210",
            error_class="builtins.KeyError",
            error="other",
            stack="other stack",
            attempts=(*first.attempts, Attempt(at=later, error_class="builtins.KeyError", error="other")),
        )
        await store.dead_letters.add(first)

        assert await store.dead_letters.add(second)

        found = list(await store.dead_letters.search(DeadLetterFilter()))
        assert [replace(second, id=first.id, first_failed_at=first.first_failed_at)] == found

    async def test_the_same_message_may_fail_in_two_consumers(self, store: Store) -> None:
        """Each subscriber has its own dead letter."""
        message = make_message()

        await store.dead_letters.add(make_dead_letter(message, consumer="orders"))
        await store.dead_letters.add(make_dead_letter(message, consumer="billing"))

        found = await store.dead_letters.search(DeadLetterFilter(message_id=message.id))
        assert {"orders", "billing"} == {record.consumer for record in found}

    async def test_an_id_names_a_message_only_together_with_source_and_type(self, store: Store) -> None:
        """Two services use the order's UUID for events of their own: neither takes the other's place."""
        id = IDS.message_id()
        sent = [make_message(type, id=id, source=source) for type, source in (("a", "x"), ("b", "x"), ("a", "y"))]
        for message in sent:
            await store.dead_letters.add(make_dead_letter(message))
        async with store.transaction() as tx:
            await store.dead_letters.resolve(tx, "orders", sent[1])

        found = await store.dead_letters.search(DeadLetterFilter(message_id=id))

        assert sent == [record.message for record in found]
        assert [OPEN, RESOLVED, OPEN] == [record.state for record in found]

    async def test_nothing_is_kept_of_a_message_its_consumer_has_handled(self, store: Store) -> None:
        """A copy of it succeeded: a dead letter would be a false alarm, and its replay does nothing."""
        record = make_dead_letter()
        async with store.transaction() as tx:
            await store.inbox.record(tx, record.consumer, record.message.id)

        assert not await store.dead_letters.add(record)
        assert [] == list(await store.dead_letters.search(DeadLetterFilter()))

    async def test_a_late_failure_does_not_reopen_what_was_resolved(self, store: Store) -> None:
        """The success stands, whatever arrives after it."""
        record = make_dead_letter()
        await store.dead_letters.add(record)
        async with store.transaction() as tx:
            await store.inbox.record(tx, record.consumer, record.message.id)
            await store.dead_letters.resolve(tx, record.consumer, record.message)
        before = await store.dead_letters.get(record.id)

        assert not await store.dead_letters.add(make_dead_letter(record.message))
        assert before == await store.dead_letters.get(record.id)

    async def test_another_consumers_success_does_not_hide_a_failure(self, store: Store) -> None:
        """The inbox is asked for this consumer."""
        record = make_dead_letter()
        async with store.transaction() as tx:
            await store.inbox.record(tx, "another", record.message.id)

        assert await store.dead_letters.add(record)

    @pytest.mark.parametrize("id", ["", "nothing", "00000000-0000-7000-8000-000000000000"])
    async def test_an_unknown_id_is_nothing_and_no_error(self, store: Store, id: str) -> None:
        """An operator mistypes; each verb says so in the way it always does."""
        assert await store.dead_letters.get(id) is None
        assert not await store.dead_letters.replay(id, "ann", "why not")
        assert not await store.dead_letters.discard(id, "ann", "why not")

    async def test_search_returns_what_matches_every_field_oldest_first(self, store: Store) -> None:
        """The list an operator works through."""
        start = CLOCK.now()
        records = [
            make_dead_letter(
                make_message(f"type.{n % 2}"),
                consumer=f"consumer-{n % 3}",
                reason="handler" if n < 4 else "decode",
                failed_at=start - timedelta(minutes=n),
            )
            for n in range(6)
        ]
        for record in records:
            await store.dead_letters.add(record)
        oldest_first = [record.id for record in reversed(records)]
        search = store.dead_letters.search

        async def ids(filter: DeadLetterFilter) -> list[str]:
            return [record.id for record in await search(filter)]

        assert oldest_first == await ids(DeadLetterFilter())
        assert oldest_first[:2] == await ids(DeadLetterFilter(limit=2))
        assert [records[3].id, records[0].id] == await ids(DeadLetterFilter(consumer="consumer-0"))
        assert [records[5].id, records[4].id] == await ids(DeadLetterFilter(reason="decode"))
        assert [records[4].id, records[2].id, records[0].id] == await ids(DeadLetterFilter(type="type.0"))
        assert [records[1].id] == await ids(DeadLetterFilter(message_id=records[1].message.id))
        assert [records[4].id] == await ids(DeadLetterFilter(type="type.0", reason="decode", state=OPEN))
        assert [] == await ids(DeadLetterFilter(state=RESOLVED))

    async def test_counts_tell_how_many_are_in_each_state(self, store: Store) -> None:
        """The alarm reads it."""
        records = [make_dead_letter() for _ in range(5)]
        for record in records:
            await store.dead_letters.add(record)
        await store.dead_letters.replay(records[0].id, "ann", "fixed")
        await store.dead_letters.discard(records[1].id, "ann", "spam")
        await _resolve(store, records[2])

        counts = await store.dead_letters.counts()

        expected = {OPEN: 2, REPLAYING: 1, DeadLetterState.HELD: 0, DISCARDED: 1, RESOLVED: 1}
        assert expected == {state: counts.get(state, 0) for state in DeadLetterState}

    async def test_replay_puts_a_copy_into_the_outbox(self, store: Store) -> None:
        """Same id, to the queue that failed, marked as the first replay; nothing else of it changes."""
        message = make_message(key="k", headers={"h-a": "b"})
        record = make_dead_letter(message, destination="queue:orders", routing_key="a.b")
        await store.dead_letters.add(record)

        assert await store.dead_letters.replay(record.id, "ann", "stock is back")

        (row,) = await ready_rows(store)
        copy = row.outgoing.message
        headers = {"h-a": "b", REPLAY_OF: record.id, REPLAY_NO: 1}
        assert ("queue:orders", "a.b") == (str(row.outgoing.destination), row.outgoing.routing_key)
        assert headers == copy.headers
        assert message.body == copy.body
        assert (message.id, message.type, message.key, message.source, message.time) == (
            copy.id,
            copy.type,
            copy.key,
            copy.source,
            copy.time,
        )
        assert REPLAYING == await _state(store, record.id)
        assert ("replayed", "ann", "stock is back") == (await _verbs(store, record.id))[-1]

    async def test_a_second_replay_moves_nothing(self, store: Store) -> None:
        """Two people pressed the button."""
        record = make_dead_letter()
        await store.dead_letters.add(record)
        await store.dead_letters.replay(record.id, "ann", "fixed")

        assert not await store.dead_letters.replay(record.id, "bob", "fixed")

        assert 1 == len(await ready_ids(store))
        assert ["recorded", "replayed"] == [verb for verb, _, _ in await _verbs(store, record.id)]

    async def test_concurrent_replays_move_it_once(self, store: Store) -> None:
        """L23: the button pressed twice at the very same time."""
        record = make_dead_letter()
        await store.dead_letters.add(record)

        presses = (store.dead_letters.replay(record.id, f"actor-{n}", "fixed") for n in range(8))
        answers = await within(asyncio.gather(*presses))

        assert 1 == sum(answers)
        assert [record.message.id] == await ready_ids(store)
        assert 1 == (await _record(store, record.id)).replays

    async def test_a_replay_that_fails_opens_the_row_again_and_counts_on(self, store: Store) -> None:
        """The history of one message stays in one place."""
        record = make_dead_letter()
        await store.dead_letters.add(record)
        await store.dead_letters.replay(record.id, "ann", "fixed")
        await store.outbox.remove([row.ref for row in await ready_rows(store)])

        await store.dead_letters.add(make_dead_letter(record.message, error="still no stock"))
        again = await _record(store, record.id)
        assert await store.dead_letters.replay(record.id, "ann", "really fixed")

        (row,) = await ready_rows(store)
        assert (OPEN, 1, "still no stock") == (again.state, again.replays, again.error)
        assert 2 == row.outgoing.message.headers[REPLAY_NO]
        assert record.id == row.outgoing.message.headers[REPLAY_OF]

    async def test_discard_closes_an_open_or_replaying_one_and_keeps_its_content(self, store: Store) -> None:
        """Closed by a person, with a note; still there to be read."""
        opened, replaying = make_dead_letter(), make_dead_letter()
        for record in (opened, replaying):
            await store.dead_letters.add(record)
        await store.dead_letters.replay(replaying.id, "ann", "fixed")

        assert await store.dead_letters.discard(opened.id, "ann", "test data")
        assert await store.dead_letters.discard(replaying.id, "bob", "gave up")

        for record, actor, note in ((opened, "ann", "test data"), (replaying, "bob", "gave up")):
            kept = await _record(store, record.id)
            assert (DISCARDED, note, record.message) == (kept.state, kept.note, kept.message)
            assert kept.closed_at is not None
            assert ("discarded", actor, note) == (await _verbs(store, record.id))[-1]

    async def test_a_closed_one_cannot_be_discarded_or_replayed(self, store: Store) -> None:
        """Closed is final, but for a new failure of the same message."""
        discarded, resolved = make_dead_letter(), make_dead_letter()
        for record in (discarded, resolved):
            await store.dead_letters.add(record)
        await store.dead_letters.discard(discarded.id, "ann", "spam")
        await _resolve(store, resolved)

        for record in (discarded, resolved):
            before = await store.dead_letters.get(record.id)
            assert not await store.dead_letters.discard(record.id, "bob", "again")
            assert not await store.dead_letters.replay(record.id, "bob", "again")
            assert before == await store.dead_letters.get(record.id)
        assert [] == await ready_ids(store)

    async def test_a_new_failure_opens_a_discarded_one_again(self, store: Store) -> None:
        """Nothing ends silently, also not what somebody once waved away."""
        record = make_dead_letter()
        await store.dead_letters.add(record)
        await store.dead_letters.discard(record.id, "ann", "spam")

        assert await store.dead_letters.add(make_dead_letter(record.message))

        again = await _record(store, record.id)
        assert (OPEN, None) == (again.state, again.closed_at)

    async def test_resolve_takes_effect_with_the_transaction_of_the_success(self, store: Store) -> None:
        """Resolved if and only if the effects are."""
        opened, replaying = make_dead_letter(), make_dead_letter()
        for record in (opened, replaying):
            await store.dead_letters.add(record)
        await store.dead_letters.replay(replaying.id, "ann", "fixed")

        async with store.transaction() as tx:
            answers = [
                await store.dead_letters.resolve(tx, record.consumer, record.message) for record in (opened, replaying)
            ]
            while_open = await _state(store, opened.id)

        assert [True, True] == answers
        assert OPEN == while_open
        for record in (opened, replaying):
            kept = await _record(store, record.id)
            assert RESOLVED == kept.state
            assert kept.closed_at is not None
            assert "resolved" == (await _verbs(store, record.id))[-1][0]

    async def test_a_rolled_back_resolve_leaves_it_open(self, store: Store) -> None:
        """With no audit row either: nothing happened."""
        record = make_dead_letter()
        await store.dead_letters.add(record)

        async with rolled_back(store) as tx:
            await store.dead_letters.resolve(tx, record.consumer, record.message)

        assert OPEN == await _state(store, record.id)
        assert ["recorded"] == [verb for verb, _, _ in await _verbs(store, record.id)]

    async def test_resolving_nothing_or_a_closed_one_says_so(self, store: Store) -> None:
        """A success is most often the first attempt: there is nothing to resolve."""
        record = make_dead_letter()
        await store.dead_letters.add(record)
        await store.dead_letters.discard(record.id, "ann", "spam")

        async with store.transaction() as tx:
            closed = await store.dead_letters.resolve(tx, record.consumer, record.message)
            unknown = await store.dead_letters.resolve(tx, record.consumer, make_message())
            other = await store.dead_letters.resolve(tx, "another", record.message)

        assert (False, False, False) == (closed, unknown, other)
        assert DISCARDED == await _state(store, record.id)
