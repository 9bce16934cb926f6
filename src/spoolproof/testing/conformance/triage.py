"""The contract of `ports.triage.Triage`, and of what a person may ask of `ports.dead_letters.DeadLetters`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from spoolproof.message import EDIT_OF
from spoolproof.ports.dead_letters import (
    AuditEntry,
    DeadLetterDetails,
    DeadLetterFilter,
    DeadLetterRecord,
    DeadLetterState,
)
from spoolproof.ports.store import Store
from spoolproof.ports.triage import Triage
from spoolproof.testing.conformance._messages import CLOCK, IDS, make_dead_letter, make_message
from spoolproof.testing.conformance._store import StoreSuite, ready_rows

OPEN, REPLAYING = DeadLetterState.OPEN, DeadLetterState.REPLAYING


async def _details(store: Store, id: str) -> DeadLetterDetails:
    details = await store.dead_letters.get(id)
    assert details is not None
    return details


async def _kept(store: Store, count: int, **fields: Any) -> list[DeadLetterRecord]:
    """Keep dead letters that failed a minute apart, the newest now; returns them oldest first."""
    now = CLOCK.now()
    records = [make_dead_letter(failed_at=now - timedelta(minutes=count - 1 - n), **fields) for n in range(count)]
    for record in records:
        await store.dead_letters.add(record)
    return records


def _edited(record: DeadLetterRecord, body: bytes) -> Any:
    message = record.message
    return make_message(
        message.type,
        key=message.key,
        id=IDS.message_id(),
        source=message.source,
        time=message.time,
        body=body,
        headers={**message.headers, EDIT_OF: message.id},
    )


@pytest.mark.asyncio
class TriageConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_a_group_is_what_fails_alike_in_one_consumer(self, store: Store) -> None:
        """What is failing, since when, how many, is it still failing: the first four questions."""
        many = await _kept(store, 12)
        await _kept(store, 2, fingerprint="f" * 16, consumer="billing", reason="decode", error="line 1\nline 2")
        await _kept(store, 1, consumer="billing")
        await store.dead_letters.replay(many[0].id, "ann", "one is on its way")

        largest, second, third = await store.port(Triage).groups(DeadLetterFilter())

        assert (11, many[1].first_failed_at, many[-1].last_failed_at, many[-1].id) == (
            largest.count,
            largest.first_failed_at,
            largest.last_failed_at,
            largest.sample_id,
        )
        assert 5 == largest.recent
        assert ("handler", "builtins.ValueError", "no stock") == (largest.reason, largest.error_class, largest.error)
        assert (2, "billing", "f" * 16, "decode") == (second.count, second.consumer, second.fingerprint, second.reason)
        assert (1, "billing") == (third.count, third.consumer)

    async def test_groups_go_by_a_filter_and_a_limit(self, store: Store) -> None:
        """One consumer's trouble is one person's."""
        await _kept(store, 2)
        await _kept(store, 1, consumer="billing")
        triage = store.port(Triage)

        assert [1] == [one.count for one in await triage.groups(DeadLetterFilter(consumer="billing"))]
        assert [2] == [one.count for one in await triage.groups(DeadLetterFilter(limit=1))]
        assert [] == list(await triage.groups(DeadLetterFilter(consumer="nobody")))

    async def test_search_finds_by_everything_a_person_knows(self, store: Store) -> None:
        """A customer's key, a word of the error, a night between two hours."""
        old, keyed, new = await _kept(store, 3)
        message = make_message(key="customer-7")
        other = make_dead_letter(message, fingerprint="a" * 16, error_class="bank.Closed", error="Grüße 100%")
        await store.dead_letters.add(other)

        async def ids(**wanted: Any) -> list[str]:
            filter = DeadLetterFilter(**wanted)
            found = [record.id for record in await store.dead_letters.search(filter)]
            assert len(found) == await store.port(Triage).count(filter)
            return found

        assert [other.id] == await ids(key="customer-7")
        assert [other.id] == await ids(fingerprint="a" * 16)
        assert [other.id] == await ids(text="BANK.closed: gr")
        assert [other.id] == await ids(text="100%")
        assert [] == await ids(text="100_")
        assert [keyed.id, new.id] == await ids(since=keyed.last_failed_at, text="no stock")
        assert [old.id] == await ids(until=keyed.last_failed_at)
        assert [keyed.id, other.id] == await ids(ids=(other.id, keyed.id, "nothing", IDS.message_id()))
        assert [] == await ids(ids=())

    async def test_pages_hold_each_one_once_whatever_fails_meanwhile(self, store: Store) -> None:
        """A list that shifts under its reader shows one row twice and hides another."""
        records = await _kept(store, 5)
        last, seen = None, list[str]()
        while page := await store.dead_letters.search(DeadLetterFilter(state=OPEN, after=last, limit=2)):
            seen += [record.id for record in page]
            last = (page[-1].first_failed_at, page[-1].id)
            await store.dead_letters.add(make_dead_letter(records[0].message))  # fails again, as the newest

        assert [record.id for record in records] == seen

    async def test_an_edit_gives_it_another_message_and_keeps_the_body_it_came_with(self, store: Store) -> None:
        """Whoever asks later sees what arrived, what it became, and by whom."""
        (record,) = await _kept(store, 1)
        triage, first = store.port(Triage), _edited(record, b'{"n":2}')
        second = _edited(record, b'{"n":3}')

        assert await triage.edit(record.id, 1, first, "ann", "n was wrong")
        assert await triage.edit(record.id, 2, second, "ann", "and again")

        details = await _details(store, record.id)
        assert (second, b'{"n":1}', 3) == (
            details.record.message,
            details.record.original_body,
            details.record.version,
        )
        assert ["recorded", "edited", "edited"] == [entry.verb for entry in details.audit]
        assert ("ann", "n was wrong") == (details.audit[1].actor, details.audit[1].detail)
        assert await store.dead_letters.replay(record.id, "ann", "mended")
        (row,) = await ready_rows(store)
        assert (second.id, second.body, record.message.id) == (
            row.outgoing.message.id,
            row.outgoing.message.body,
            row.outgoing.message.headers[EDIT_OF],
        )

    async def test_of_two_editors_at_once_the_first_one_wins(self, store: Store) -> None:
        """The second one looked at what is no longer there."""
        (record,) = await _kept(store, 1)
        edits = [_edited(record, b'{"by":%d}' % n) for n in range(4)]
        triage = store.port(Triage)

        answers = await asyncio.gather(*(triage.edit(record.id, 1, edit, "ann", "x") for edit in edits))

        details = await _details(store, record.id)
        assert 1 == sum(answers)
        assert details.record.message == edits[answers.index(True)]
        assert ["recorded", "edited"] == [entry.verb for entry in details.audit]

    async def test_only_an_open_one_can_be_edited(self, store: Store) -> None:
        """A replay that is on its way carries the old body; the new one would be a lie."""
        replaying, discarded = await _kept(store, 2)
        await store.dead_letters.replay(replaying.id, "ann", "fixed")
        await store.dead_letters.discard(discarded.id, "ann", "junk")

        for record in (replaying, discarded):
            before = await _details(store, record.id)
            assert not await store.port(Triage).edit(record.id, 1, _edited(record, b"{}"), "ann", "x")
            assert before == await _details(store, record.id)

    async def test_a_further_failure_leaves_an_edited_message_as_it_is(self, store: Store) -> None:
        """The consumer sends back what it was given; the trail to the original must not end there."""
        (record,) = await _kept(store, 1)
        edited = _edited(record, b'{"n":2}')
        await store.port(Triage).edit(record.id, 1, edited, "ann", "x")
        await store.dead_letters.replay(record.id, "ann", "mended")

        await store.dead_letters.add(make_dead_letter(edited, error="still"))

        again = (await _details(store, record.id)).record
        assert (OPEN, edited, b'{"n":1}', 2, "still") == (
            again.state,
            again.message,
            again.original_body,
            again.version,
            again.error,
        )

    async def test_a_replay_may_be_forced_while_an_earlier_one_is_under_way(self, store: Store) -> None:
        """Its copy may be lost in a broker that somebody deleted; the inbox absorbs it if not."""
        (record,) = await _kept(store, 1)
        await store.dead_letters.replay(record.id, "ann", "fixed")
        assert not await store.dead_letters.replay(record.id, "bob", "where is it?")

        assert await store.dead_letters.replay(record.id, "bob", "where is it?", force=True)

        again = (await _details(store, record.id)).record
        assert (REPLAYING, 2) == (again.state, again.replays)
        assert again.replayed_at is not None
        assert 2 == len(await ready_rows(store))

    async def test_a_replay_may_go_to_another_queue_and_is_its_from_then_on(self, store: Store) -> None:
        """Its success there resolves it, and its failure there opens it again."""
        (record,) = await _kept(store, 1, routing_key="a.b")

        assert await store.dead_letters.replay(record.id, "ann", "v2 can", queue="orders-v2")

        (row,) = await ready_rows(store)
        assert ("queue:orders-v2", None) == (str(row.outgoing.destination), row.outgoing.routing_key)
        async with store.transaction() as tx:
            assert await store.dead_letters.resolve(tx, "orders-v2", record.message)

    async def test_a_replay_does_not_go_where_the_message_has_a_dead_letter(self, store: Store) -> None:
        """One row per (consumer, message): the other one is replayed itself."""
        (record,) = await _kept(store, 1)
        await store.dead_letters.add(make_dead_letter(record.message, consumer="billing"))
        before = await _details(store, record.id)

        assert not await store.dead_letters.replay(record.id, "ann", "x", queue="billing")

        assert before == await _details(store, record.id)
        assert [] == list(await ready_rows(store))

    async def test_what_is_imported_is_open_and_keeps_its_history(self, store: Store) -> None:
        """From another environment, or back after a disaster."""
        record = replace(make_dead_letter(), replays=2, version=2, original_body=b"{}", service="shop")
        other = replace(make_dead_letter(), service="shop")
        await store.dead_letters.add(make_dead_letter())
        letters = [DeadLetterDetails(record, await _trail(store)), DeadLetterDetails(other)]

        assert 2 == await store.port(Triage).restore(letters, "ann", "from file x")

        details = await _details(store, record.id)
        assert record == details.record
        assert ["recorded", "imported"] == [entry.verb for entry in details.audit]
        assert letters[0].audit[0] == details.audit[0]
        assert ("ann", "from file x") == (details.audit[1].actor, details.audit[1].detail)

    async def test_an_import_never_doubles_and_never_overwrites(self, store: Store) -> None:
        """Whoever is not sure whether it ran runs it again."""
        there, replaying = await _kept(store, 2)
        await store.dead_letters.replay(replaying.id, "ann", "fixed")
        before = [await _details(store, record.id) for record in (there, replaying)]
        same_message = replace(make_dead_letter(there.message), error="other")
        letters = [*before, DeadLetterDetails(same_message), DeadLetterDetails(make_dead_letter())]

        assert [1, 0] == [await store.port(Triage).restore(letters, "ann", "x") for _ in range(2)]

        assert before == [await _details(store, record.id) for record in (there, replaying)]
        assert 3 == await store.port(Triage).count(DeadLetterFilter())


async def _trail(store: Store) -> tuple[AuditEntry, ...]:
    (record,) = await store.dead_letters.search(DeadLetterFilter())
    return (await _details(store, record.id)).audit
