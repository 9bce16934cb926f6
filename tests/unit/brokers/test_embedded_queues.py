"""The embedded broker's statements on a database of their own: the moves of a message, and the fence around a claim."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.brokers.embedded.broker import _prepare
from spoolproof.brokers.embedded.queues import (
    Claim,
    Routes,
    Verb,
    add_owner,
    claim,
    depths,
    enqueue,
    has_ready,
    parcel_of,
    release_due,
    renew_owner,
    rescue,
    seconds_until_due,
    settle,
)
from spoolproof.clock import SystemClock
from spoolproof.errors import EncodeError
from spoolproof.message import Outgoing
from spoolproof.ports.broker import CONFIRMED, NACKED, PublishOutcome, QueueSpec, Topology
from spoolproof.sqlite.steady import give_steady
from spoolproof.testing.conformance._messages import make_outgoing

TOPOLOGY = Topology(
    service="shop",
    exchange="events",
    queues=(
        QueueSpec(name="a", types=("test.*",), delivery_limit=2),
        QueueSpec(name="b", types=("test.happened",), delivery_limit=2),
    ),
    tiers_seconds=(0, 60),
)
LEASE_SECONDS = 30.0


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        give_steady(connection, SystemClock())
        _prepare(connection, TOPOLOGY)
        yield connection


def put(db: sqlite3.Connection, *sent: Outgoing, rows_max: int = 1000) -> list[PublishOutcome]:
    return enqueue(db, Routes(), [parcel_of(outgoing, "shop", "events") for outgoing in sent], rows_max)


def to_a() -> Outgoing:
    return make_outgoing(destination="queue:a")


def claims(db: sqlite3.Connection, owner: int, queue: str = "a", limit: int = 100) -> list[Claim]:
    return [claimed.claim for claimed in claim(db, owner, queue, limit)]


@pytest.mark.parametrize("verb", list(Verb))
def test_a_late_answer_to_a_rescued_claim_changes_nothing(db: sqlite3.Connection, verb: Verb) -> None:
    """S5: whoever was frozen past its lease must not touch what somebody else is working on."""
    put(db, to_a())
    frozen, heir = add_owner(db, "u1", 0.0), add_owner(db, "u2", LEASE_SECONDS)
    (late,) = claims(db, frozen)
    rescue(db, frozen, is_dead=False)
    (current,) = claims(db, heir)
    before = db.execute("select * from message").fetchall()

    settle(db, frozen, [(late, verb)])
    settle(db, heir, [(late, verb)])  # the right owner, the wrong claim

    assert before == db.execute("select * from message").fetchall()
    settle(db, heir, [(current, Verb.ACK)])
    assert 0 == depths(db)["a"]


def test_a_lease_that_was_renewed_is_not_rescued(db: sqlite3.Connection) -> None:
    """It had run out when we looked, and had not when we wrote."""
    put(db, to_a())
    owner = add_owner(db, "u1", 0.0)
    claims(db, owner)

    assert renew_owner(db, owner, LEASE_SECONDS)

    assert 0 == rescue(db, owner, is_dead=False)
    assert not has_ready(db, ["a"])


def test_a_dead_owner_is_rescued_within_its_lease_and_once(db: sqlite3.Connection) -> None:
    """Its lock is free: there is nothing to wait for. It learns of it at its next renewal."""
    put(db, to_a(), to_a())
    owner = add_owner(db, "u1", LEASE_SECONDS)
    claims(db, owner)

    assert [2, 0] == [rescue(db, owner, is_dead=True) for _ in range(2)]
    assert not renew_owner(db, owner, LEASE_SECONDS)
    assert 2 == len(claims(db, add_owner(db, "u2", LEASE_SECONDS)))


def test_a_message_that_kills_its_consumers_ends_in_the_dead_queue(db: sqlite3.Connection) -> None:
    """Every rescue counts as a delivery; after limit + 1 of them it is given up, visibly."""
    put(db, to_a())
    for number in range(3):
        owner = add_owner(db, f"u{number}", LEASE_SECONDS)
        assert number + 1 == claims(db, owner)[0].number
        rescue(db, owner, is_dead=True)

    (dead,) = claim(db, add_owner(db, "last", LEASE_SECONDS), "a.dead", 10)

    assert ("delivery_limit", 1) == (dead.dead_reason, dead.claim.number)
    assert 0 == depths(db)["a"]


def test_a_delivery_nobody_saw_goes_back_uncounted(db: sqlite3.Connection) -> None:
    """A hundred deploys must not bring an innocent message to its limit."""
    put(db, to_a())
    owner = add_owner(db, "u1", LEASE_SECONDS)

    for _ in range(5):
        (unseen,) = claims(db, owner)
        assert 1 == unseen.number
        settle(db, owner, [(unseen, Verb.UNSEEN)])


def test_what_goes_back_keeps_its_place(db: sqlite3.Connection) -> None:
    """A nack must not let the next message of its key overtake for good."""
    sent = [to_a() for _ in range(4)]
    put(db, *sent)
    owner = add_owner(db, "u1", LEASE_SECONDS)
    settle(db, owner, [(one, Verb.NACK) for one in reversed(claims(db, owner, limit=2))])

    again = claim(db, owner, "a", 10)

    assert [outgoing.message.id for outgoing in sent] == [claimed.message_id for claimed in again]


def test_a_rejected_dead_letter_stays_where_it_is(db: sqlite3.Connection) -> None:
    """A dead queue has no dead queue: dropping it would be a silent end."""
    put(db, make_outgoing(destination="queue:a.dead"))
    owner = add_owner(db, "u1", LEASE_SECONDS)

    settle(db, owner, [(claims(db, owner, "a.dead")[0], Verb.REJECT)])

    assert 1 == len(claims(db, owner, "a.dead"))


def test_a_full_queue_declines_and_no_other_queue_gets_the_message(db: sqlite3.Connection) -> None:
    """Declined means nowhere: the outbox sends it again, to all of them."""
    put(db, *(to_a() for _ in range(3)))

    outcomes = put(db, make_outgoing("test.happened"), make_outgoing(destination="queue:b"), rows_max=3)

    assert [NACKED, CONFIRMED] == outcomes
    assert (3, 1) == (depths(db)["a"], depths(db)["b"])


def test_one_batch_does_not_fill_a_queue_past_its_limit(db: sqlite3.Connection) -> None:
    """What the batch itself adds counts as well."""
    assert [CONFIRMED, CONFIRMED, NACKED] == put(db, to_a(), to_a(), to_a(), rows_max=2)


def test_a_delay_is_known_until_it_is_over(db: sqlite3.Connection) -> None:
    """The process sleeps until then, and not longer."""
    assert seconds_until_due(db) is None
    put(db, make_outgoing(destination="delay:60", routing_key="a"))
    due_seconds = seconds_until_due(db)

    assert due_seconds is not None
    assert 50 < due_seconds <= 60
    assert 0 == release_due(db, 10)
    put(db, make_outgoing(destination="delay:0", routing_key="a"))
    assert 1 == release_due(db, 10)
    assert has_ready(db, ["a"])


def test_a_route_is_looked_up_again_when_bindings_change(db: sqlite3.Connection) -> None:
    """A service that starts now must get what is published from now on, by processes that run for weeks."""
    routes = Routes()
    parcel = parcel_of(make_outgoing("later.bound"), "shop", "events")
    before = enqueue(db, routes, [parcel], 10)
    spec = QueueSpec(name="c", types=("later.bound",), delivery_limit=2)

    _prepare(db, Topology(service="late", exchange="events", queues=(spec,), tiers_seconds=()))

    assert [CONFIRMED] == enqueue(db, routes, [parcel], 10)
    assert [CONFIRMED] != before


def test_declaring_the_same_again_changes_nothing(db: sqlite3.Connection) -> None:
    """Every start does it; routes stay cached in every other process."""
    version = db.execute("select version from topology").fetchone()

    _prepare(db, TOPOLOGY)

    assert version == db.execute("select version from topology").fetchone()


def test_text_that_is_no_unicode_is_refused_before_it_meets_its_neighbours() -> None:
    """L25: one bad message in a batch must not cost the others their outcome."""
    with pytest.raises(EncodeError, match="surrogates"):
        parcel_of(make_outgoing("test.\ud800"), "shop", "events")


@given(steps=st.lists(st.sampled_from(["put", "put", "delay", "claim", *Verb, "rescue", "release"]), max_size=40))
def test_row_counts_are_right_whatever_happens(steps: list[str]) -> None:
    """The limit of a queue rests on them, and nobody ever counts."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        give_steady(db, SystemClock())
        _prepare(db, TOPOLOGY)
        owner = add_owner(db, "u", LEASE_SECONDS)
        held: list[Claim] = []
        for number, step in enumerate(steps):
            if step == "put":
                put(db, make_outgoing("test.happened"))
            elif step == "delay":
                put(db, make_outgoing(destination="delay:0", routing_key="a" if number % 2 else "gone"))
            elif step == "claim":
                held += claims(db, owner, limit=2)
            elif step == "release":
                release_due(db, 1)
            elif step == "rescue":
                rescue(db, owner, is_dead=True)
                owner = add_owner(db, f"u{number}", LEASE_SECONDS)
            elif held:
                settle(db, owner, [(held.pop(), Verb(step))])

        counted = Counter(queue for (queue,) in db.execute("select queue from message"))
        assert counted == +depths(db)
        assert 0 <= min(depths(db).values())
