"""The contract of `ports.webhooks.Webhooks`, and of what every store does with events for its endpoints."""

from __future__ import annotations

import pytest

from spoolproof.destination import destination_of
from spoolproof.message import Outgoing
from spoolproof.ports.outbox import OutboxRow
from spoolproof.ports.store import Store
from spoolproof.ports.webhooks import Endpoint, EndpointState, Webhooks
from spoolproof.testing.conformance._messages import make_dead_letter, make_message
from spoolproof.testing.conformance._store import StoreSuite, rolled_back

LONG = 3_600.0


def an_endpoint(name: str, *types: str) -> Endpoint:
    """Return an endpoint that wants these types."""
    return Endpoint(name=name, url=f"https://{name}.example/hook", secrets=("env:HOOK", "whsec_AAAA"), types=types)


async def webhook_rows(store: Store) -> list[OutboxRow]:
    """Return every ready row of a webhook."""
    own = store.services.own
    rows = (await store.outbox.fetch(dict.fromkeys(own.webhooks, 0), (), 1000)).rows
    return sorted(rows, key=lambda row: row.ref.id)


async def destinations(store: Store) -> list[tuple[str, str]]:
    """Return message id and destination of every ready row of a webhook."""
    return [(row.outgoing.message.id, str(row.outgoing.destination)) for row in await webhook_rows(store)]


@pytest.mark.asyncio
class WebhooksConformance(StoreSuite):
    """Needs the fixture `store`, with the port `webhooks.Webhooks`."""

    async def test_an_endpoint_is_found_as_it_was_added(self, store: Store) -> None:
        """Its name is its own: a second one of it would take the events of the first."""
        webhooks = store.port(Webhooks)
        billing = an_endpoint("billing", "order.placed", "order.paid")

        assert await webhooks.add(billing)
        assert not await webhooks.add(an_endpoint("billing", "*"))
        assert await webhooks.add(an_endpoint("Audit", "*"))

        assert [an_endpoint("Audit", "*"), billing] == list(await webhooks.all())

    async def test_an_event_has_a_row_for_every_endpoint_that_wants_it(self, store: Store) -> None:
        """Written with the event, in shards of their own: a slow receiver never delays the broker."""
        webhooks = store.port(Webhooks)
        for endpoint in (an_endpoint("all", "*"), an_endpoint("paid", "paid"), an_endpoint("other", "paid.late")):
            await webhooks.add(endpoint)
        await webhooks.add(an_endpoint("waits", "paid"))
        await webhooks.change("waits", EndpointState.PAUSED, "")
        await webhooks.add(an_endpoint("gone", "*"))
        await webhooks.change("gone", EndpointState.DISABLED, "")
        paid, placed = make_message("paid", key="order-1"), make_message("placed")

        await store.outbox.append([Outgoing(message=paid), Outgoing(message=placed)], None)

        expected = [(paid.id, "webhook:all"), (paid.id, "webhook:paid"), (paid.id, "webhook:waits")]
        rows = await webhook_rows(store)
        assert sorted([*expected, (placed.id, "webhook:all")]) == sorted(await destinations(store))
        assert {paid.body} == {row.outgoing.message.body for row in rows if row.outgoing.message.id == paid.id}
        assert {None} == {row.outgoing.message.key for row in rows}, "one event that is not taken holds up no other"
        assert {"all": 2, "paid": 1, "waits": 1} == dict(await webhooks.waiting())

    async def test_an_event_that_was_rolled_back_has_no_row(self, store: Store) -> None:
        """A webhook about what never happened cannot be called back."""
        await store.port(Webhooks).add(an_endpoint("all", "*"))
        kept = make_message()

        async with rolled_back(store) as tx:
            await store.outbox.append([Outgoing(message=make_message())], tx)
        async with store.transaction() as tx:
            await store.outbox.append([Outgoing(message=kept)], tx)

        assert [(kept.id, "webhook:all")] == await destinations(store)

    async def test_what_is_no_event_has_no_row(self, store: Store) -> None:
        """A message for one queue is nobody else's, and a replay is no new event."""
        await store.port(Webhooks).add(an_endpoint("all", "*"))
        replayed = make_message(headers={"spoolproof-replay-of": "1"})

        for message, destination in (
            (make_message(), "queue:orders"),
            (make_message(), "exchange:x"),
            (replayed, "events"),
        ):
            await store.outbox.append([Outgoing(message=message, destination=destination_of(destination))], None)

        assert [] == await destinations(store)

    async def test_a_replayed_row_is_among_the_webhooks_again(self, store: Store) -> None:
        """Anywhere else the broker would be given what is for an endpoint."""
        message = make_message()
        dead = make_dead_letter(message, consumer="relay:webhook:all", destination="webhook:all")
        await store.dead_letters.add(dead)

        assert await store.dead_letters.replay(dead.id, "ann", "it is up again")

        assert [(message.id, "webhook:all")] == await destinations(store)

    async def test_what_fails_for_too_long_is_paused(self, store: Store) -> None:
        """By the database's clock, from the first failure after the last success."""
        webhooks = store.port(Webhooks)
        await webhooks.add(an_endpoint("all", "*"))

        assert EndpointState.ACTIVE is await webhooks.note("all", "answered 500", LONG)
        (failing,) = await webhooks.all()
        assert failing.failing_since is not None
        assert EndpointState.ACTIVE is await webhooks.note("all", None, 0.0)
        assert [(None, "")] == [(one.failing_since, one.note) for one in await webhooks.all()]
        assert EndpointState.PAUSED is await webhooks.note("all", "answered 502", 0.0)
        assert EndpointState.PAUSED is await webhooks.note("all", "late", 0.0)
        assert ["answered 502"] == [one.note for one in await webhooks.all()]
        assert await webhooks.change("all", EndpointState.ACTIVE, "")
        assert [(EndpointState.ACTIVE, None)] == [(one.state, one.failing_since) for one in await webhooks.all()]

    async def test_what_is_removed_is_gone(self, store: Store) -> None:
        """Verbs on what is not there say so."""
        webhooks = store.port(Webhooks)
        await webhooks.add(an_endpoint("all", "*"))
        assert await webhooks.sign_with("all", ("whsec_BBBB",))
        assert [("whsec_BBBB",)] == [one.secrets for one in await webhooks.all()]

        assert await webhooks.remove("all")

        assert [] == list(await webhooks.all())
        assert not await webhooks.remove("all")
        assert not await webhooks.sign_with("all", ())
        assert not await webhooks.change("all", EndpointState.PAUSED, "")
        assert await webhooks.note("all", "answered 500", 0.0) is None
