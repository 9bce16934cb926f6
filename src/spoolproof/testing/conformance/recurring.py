"""The contract of `ports.recurring.Recurring`."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from spoolproof.message import message_key
from spoolproof.ports.recurring import Recurring, RecurringRow
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK, make_dead_letter, make_outgoing
from spoolproof.testing.conformance._store import StoreSuite, ready_ids

OWN, NAME = "conformance", "conformance.nightly"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FRESH_SECONDS = 15.0


@pytest.mark.asyncio
class RecurringConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_a_time_is_kept_whoever_declares_it_again(self, store: Store) -> None:
        """Ten deploys a day must not put a nightly run off for ever."""
        recurring, at = await _recurring(store), _now() + HOUR
        await recurring.declare(OWN, NAME, "every 1h", at, stale_seconds=0)
        await recurring.declare(OWN, NAME, "every 1h", at + HOUR, stale_seconds=0)

        found = await recurring.find(OWN)

        assert [(NAME, "every 1h", at, None, None)] == [
            (row.name, row.expression, row.next_at, row.last_at, row.outcome) for row in found.rows
        ]
        assert abs(found.now - CLOCK.now()) < MINUTE > abs(found.rows[0].declared_at - found.now)

    async def test_another_expression_counts_at_a_start_and_else_when_nobody_has_the_old_one(
        self, store: Store
    ) -> None:
        """During a rolling deploy both are declared, again and again: the time must not swing with them."""
        recurring, at = await _recurring(store), _now() + HOUR
        await recurring.declare(OWN, NAME, "every 1h", at, stale_seconds=0)
        await recurring.declare(OWN, NAME, "every 2h", at + HOUR, stale_seconds=FRESH_SECONDS)
        beside = (await recurring.find(OWN)).rows
        await recurring.declare(OWN, NAME, "every 2h", at + HOUR, stale_seconds=0)
        started = (await recurring.find(OWN)).rows

        assert [("every 1h", at)] == [(row.expression, row.next_at) for row in beside]
        assert [("every 2h", at + HOUR)] == [(row.expression, row.next_at) for row in started]

    async def test_of_two_that_send_a_run_one_does(self, store: Store) -> None:
        """Both believe that they lead; the run exists once, with the row that was moved."""
        recurring, row = await _declared(store)
        runs = [make_outgoing(destination=f"queue:{NAME}") for _ in range(5)]

        answers = await asyncio.gather(*(recurring.advance(row, row.next_at + HOUR, run) for run in runs))

        (moved,) = (await recurring.find(OWN)).rows
        assert [True] == [answer for answer in answers if answer]
        assert [runs[answers.index(True)].message.id] == await ready_ids(store)
        assert (row.next_at, row.next_at + HOUR) == (moved.last_at, moved.next_at)

    async def test_a_row_that_was_declared_otherwise_meanwhile_is_not_moved(self, store: Store) -> None:
        """A new release counts from its start on."""
        recurring, row = await _declared(store)
        await recurring.declare(OWN, NAME, "every 2h", row.next_at, stale_seconds=0)

        assert not await recurring.advance(row, row.next_at + HOUR, make_outgoing())
        assert [] == await ready_ids(store)

    async def test_what_became_of_the_last_run_is_told(self, store: Store) -> None:
        """`schedule ls` is where somebody looks who asks whether the night went well."""
        recurring, row = await _declared(store)
        handled, failed = (make_outgoing(destination=f"queue:{NAME}") for _ in range(2))

        await recurring.advance(row, row.next_at + HOUR, handled)
        outcomes = [(row := (await recurring.find(OWN)).rows[0]).outcome]
        async with store.transaction() as tx:
            await store.inbox.record(tx, NAME, message_key(handled.message) or "")
        outcomes.append((await recurring.find(OWN)).rows[0].outcome)
        await recurring.advance(row, row.next_at + HOUR, failed)
        await store.dead_letters.add(make_dead_letter(failed.message, consumer=NAME))
        outcomes.append((await recurring.find(None)).rows[0].outcome)

        assert [None, "handled", "open"] == outcomes

    async def test_what_nobody_declares_any_more_goes(self, store: Store) -> None:
        """And nothing of another service, whose processes may all be down."""
        recurring, _ = await _declared(store)
        await recurring.declare("another", NAME, "every 1h", _now(), stale_seconds=0)

        kept = await recurring.forget(OWN, 60.0)
        gone = await recurring.forget(OWN, -1.0)

        assert ([], [NAME]) == (list(kept), list(gone))
        assert ["another"] == [row.service for row in (await recurring.find(None)).rows]
        assert [] == (await recurring.find(OWN)).rows


def _now() -> datetime:
    return CLOCK.now().replace(microsecond=125_000)


async def _recurring(store: Store) -> Recurring:
    await store.services.claim(OWN)
    return store.port(Recurring)


async def _declared(store: Store) -> tuple[Recurring, RecurringRow]:
    recurring = await _recurring(store)
    await recurring.declare(OWN, NAME, "every 1h", _now(), stale_seconds=0)
    (row,) = (await recurring.find(OWN)).rows
    return recurring, row
