"""What the embedded broker does to its database: each function is one step inside an open write transaction.

A message is ready (no owner, no time), claimed (an owner), or delayed (a time). The moves:

    publish → ready ⇄ claimed → gone (ack)          publish → delayed → ready (a new row, at the end of its queue)
                       claimed → ready of its dead queue (reject, or handed out too often for its queue)

A claim is (id, owner, claims). Whatever ends one names all three, so a process that was frozen past its lease, and
whose messages were rescued and claimed again, changes nothing with its late answers: `claims` has risen.

Must never happen here: a message removed by anything but the ack of its current claim.
Must change together: this file, `schema.sql`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from spoolproof.brokers.given_up import dead_queue, unrouted_queue
from spoolproof.brokers.topics import topic_matches
from spoolproof.destination import Kind
from spoolproof.errors import EncodeError
from spoolproof.message import Outgoing, pack_meta
from spoolproof.ports.broker import CONFIRMED, NACKED, PublishOutcome, Returned, Topology
from spoolproof.sqlite import STEADY
from spoolproof.sqlite.steady import has_table

_ROUTES_MAX = 10_000


class Verb(StrEnum):
    """How a claim ends."""

    ACK = "ack"
    NACK = "nack"
    REJECT = "reject"
    UNSEEN = "unseen"  #: nobody has seen the delivery: it goes back uncounted


@dataclass(frozen=True, slots=True)
class Claim:
    """A message handed to an owner; `number` is its fencing token."""

    id: int
    number: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim and the stored message."""

    claim: Claim
    message_id: str
    type: str
    ordering_key: str | None
    dead_reason: str | None
    target: str | None  #: of a delayed copy
    headers: str
    body: bytes
    routing_key: str  #: empty for what was sent to a queue


Settlement = tuple[Claim, Verb]


def declare(db: sqlite3.Connection, topology: Topology) -> None:
    """Make the queues and bindings that are missing; the rest stays as it is, but for a changed delivery limit."""
    unrouted = unrouted_queue(topology.service)
    queues: list[tuple[object, ...]] = [(unrouted, None, None, None, None)]
    queues += [
        (delay_queue(topology.service, seconds), None, None, seconds, unrouted) for seconds in topology.tiers_seconds
    ]
    for spec in topology.queues:
        dead = dead_queue(spec.name)
        queues += [(spec.name, spec.delivery_limit, dead, None, None), (dead, None, None, None, None)]
    before = db.total_changes
    db.executemany(
        "insert into queue (name, delivery_limit, dead_queue, delay_seconds, unrouted_queue) values (?, ?, ?, ?, ?)"
        " on conflict (name) do update set delivery_limit = excluded.delivery_limit"
        " where delivery_limit is not excluded.delivery_limit",
        queues,
    )
    db.executemany(
        "insert or ignore into binding (exchange, pattern, queue) values (?, ?, ?)",
        _bindings(topology, is_leaving=False),
    )
    db.executemany(
        "delete from binding where exchange = ? and pattern = ? and queue = ?", _bindings(topology, is_leaving=True)
    )
    if db.total_changes > before:
        db.execute("update topology set version = version + 1")


def declare_own(db: sqlite3.Connection, names: Sequence[str], owner_uuid: str) -> None:
    """Make the queues of one process, which go with it."""
    db.executemany(
        "insert into queue (name, owner_uuid) values (?, ?)"
        " on conflict (name) do update set owner_uuid = excluded.owner_uuid",
        [(name, owner_uuid) for name in names],
    )
    if names:
        db.execute("update topology set version = version + 1")


def left_behind(db: sqlite3.Connection) -> list[str]:
    """Return the queues whose process is no owner any more. Reads only."""
    ownerless = "select name from queue where owner_uuid not in (select uuid from owner)"
    return [name for (name,) in db.execute(ownerless)]


def remove_left_behind(db: sqlite3.Connection) -> None:
    """Delete the queues whose process is no owner any more."""
    for name in left_behind(db):
        remove(db, name)


def _bindings(topology: Topology, *, is_leaving: bool) -> list[tuple[str, str, str]]:
    specs = [spec for spec in topology.queues if spec.is_leaving is is_leaving]
    return [(topology.exchange, pattern, spec.name) for spec in specs for pattern in spec.types]


def remove(db: sqlite3.Connection, queue: str) -> int:
    """Delete a queue with its bindings and what is in it; returns how many messages that was."""
    held = depths(db).get(queue, 0)
    for statement in (
        "delete from message where queue = ?",
        "delete from binding where queue = ?",
        "delete from queue where name = ?",
    ):
        db.execute(statement, (queue,))
    db.execute("update topology set version = version + 1")
    return held


def delay_queue(service: str, seconds: int) -> str:
    """Return the name of a service's delay queue."""
    return f"{service}.delay.{seconds}"


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message on its way into queues: its route, and the values of its row."""

    kind: str  #: exchange or queue
    name: str
    routing_key: str  #: empty for a queue
    return_queue: str | None
    values: tuple[object, ...]
    body_bytes: int


def parcel_of(outgoing: Outgoing, service: str, exchange: str) -> Parcel:
    """Return what `enqueue` takes. Raises EncodeError for an unknown destination and for text that is not Unicode."""
    message = outgoing.message
    routing_key = message.type if outgoing.routing_key is None else outgoing.routing_key
    try:
        for text in (message.id, message.type, message.key or "", routing_key, outgoing.destination.name):
            text.encode()
        values = (message.id, message.type, message.key, pack_meta(message), message.body)
    except ValueError as error:
        raise EncodeError(f"message {message.id!r} cannot be stored: {error}") from error
    destination, size = outgoing.destination, len(message.body)
    match destination.kind:
        case Kind.EVENTS:
            return Parcel("exchange", exchange, routing_key, None, values, size)
        case Kind.EXCHANGE:
            return Parcel("exchange", destination.name, routing_key, None, values, size)
        case Kind.QUEUE:
            return Parcel("queue", destination.name, "", None, values, size)
        case Kind.DELAY:
            return Parcel("queue", delay_queue(service, destination.seconds), "", routing_key, values, size)
        case _:
            raise destination.unknown()


class Routes:
    """Finds the queues of a message. Remembers routes until the topology's version changes; one per connection."""

    def __init__(self) -> None:
        self._version = -1
        self._routes: dict[tuple[str, str, str], tuple[str, ...]] = {}

    def refresh(self, db: sqlite3.Connection) -> None:
        """Forget every route if the topology has changed. Called once per transaction."""
        (version,) = db.execute("select version from topology").fetchone()
        if version != self._version or len(self._routes) > _ROUTES_MAX:
            self._version = version
            self._routes.clear()

    def queues_for(self, db: sqlite3.Connection, parcel: Parcel) -> tuple[str, ...]:
        """Return the queues the message belongs in; perhaps none."""
        route = (parcel.kind, parcel.name, parcel.routing_key)
        found = self._routes.get(route)
        if found is None:
            found = self._routes[route] = self._look_up(db, *route)
        return found

    @staticmethod
    def _look_up(db: sqlite3.Connection, kind: str, name: str, routing_key: str) -> tuple[str, ...]:
        if kind == "queue":
            return tuple(queue for (queue,) in db.execute("select name from queue where name = ?", (name,)))
        bindings = db.execute("select pattern, queue from binding where exchange = ?", (name,))
        return tuple(sorted({queue for pattern, queue in bindings if topic_matches(pattern, routing_key)}))


def enqueue(db: sqlite3.Connection, routes: Routes, batch: Sequence[Parcel], rows_max: int) -> list[PublishOutcome]:
    """Put messages into every queue they belong in; returns their outcomes, true once this transaction commits.

    A message that does not fit into one of its queues goes into none.
    """
    routes.refresh(db)
    free: dict[str, int] = {}
    outcomes: list[PublishOutcome] = []
    rows: list[tuple[object, ...]] = []
    for parcel in batch:
        queues = routes.queues_for(db, parcel)
        for queue in queues:
            if queue not in free:
                (taken,) = db.execute("select rows from queue where name = ?", (queue,)).fetchone()
                free[queue] = rows_max - taken
        if not queues:
            outcomes.append(Returned(f"no queue for {parcel.kind}:{parcel.name} with key {parcel.routing_key!r}"))
        elif min(free[queue] for queue in queues) < 1:
            outcomes.append(NACKED)
        else:
            for queue in queues:
                free[queue] -= 1
                rows.append((queue, parcel.return_queue, *parcel.values, parcel.routing_key))
            outcomes.append(CONFIRMED)
    db.executemany(
        "insert into message"
        " (queue, available_at, return_queue, message_id, type, ordering_key, headers, body, routing_key)"
        f" values (?1, {STEADY} + (select delay_seconds from queue where name = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        rows,
    )
    return outcomes


def release_due(db: sqlite3.Connection, limit: int) -> int:
    """Send delayed messages whose time has passed to the end of their queue, or to unrouted if it is gone."""
    due = db.execute(
        f"select id from message where available_at <= {STEADY} order by available_at, id limit ?", (limit,)
    ).fetchall()
    db.executemany(
        "insert into message (queue, return_queue, message_id, type, ordering_key, headers, body)"
        " select coalesce((select name from queue where name = m.return_queue), d.unrouted_queue),"
        "   m.return_queue, m.message_id, m.type, m.ordering_key, m.headers, m.body"
        " from message m join queue d on d.name = m.queue where m.id = ?",
        due,
    )
    db.executemany("delete from message where id = ?", due)
    return len(due)


def has_ready(db: sqlite3.Connection, queues: Iterable[str]) -> bool:
    """Tell whether one of these queues has a ready message. Reads only."""
    ready = "select 1 from message where queue = ? and owner is null and available_at is null limit 1"
    return any(db.execute(ready, (queue,)).fetchone() is not None for queue in queues)


def seconds_until_due(db: sqlite3.Connection) -> float | None:
    """Return when the next delayed message is due, 0 or less for now; None when none waits. Reads only."""
    # without the condition on null the partial index would not serve
    found = db.execute(f"select min(available_at) - {STEADY} from message where available_at is not null").fetchone()[0]
    return None if found is None else float(found)


def claim(db: sqlite3.Connection, owner: int, queue: str, limit: int, *, is_ordered: bool = False) -> list[Claimed]:
    """Hand the oldest ready messages of a queue to an owner, in order.

    is_ordered: none while another owner holds some. Those of one owner cannot overtake each other, for it runs them in
    lanes; those of two could.
    """
    if is_ordered and _is_held_by_others(db, owner, queue):
        return []
    rows = db.execute(
        "update message set owner = ?, claims = claims + 1 where id in ("
        "  select id from message where queue = ? and owner is null and available_at is null order by id limit ?)"
        " returning id, claims, message_id, type, ordering_key, dead_reason, return_queue, headers, body, routing_key",
        (owner, queue, limit),
    ).fetchall()
    rows.sort()  # RETURNING promises no order; ids are unique, so nothing else is compared
    return [Claimed(Claim(id, number), *rest) for id, number, *rest in rows]


def _is_held_by_others(db: sqlite3.Connection, owner: int, queue: str) -> bool:
    held = "select 1 from message where owner is not null and owner <> ? and queue = ? limit 1"
    return db.execute(held, (owner, queue)).fetchone() is not None


def settle(db: sqlite3.Connection, owner: int, settlements: Sequence[Settlement]) -> None:
    """End claims of an owner. One that is no longer its own is left alone."""
    ended = [(claim.id, owner, claim.number, verb) for claim, verb in settlements]
    db.executemany(
        "delete from message where id = ? and owner = ? and claims = ?",
        [fence for *fence, verb in ended if verb is Verb.ACK],
    )
    for id, _, number, verb in ended:
        if verb is Verb.ACK:
            continue
        mine = db.execute("select 1 from message where id = ? and owner = ? and claims = ?", (id, owner, number))
        if mine.fetchone() is None:
            continue
        if verb is Verb.REJECT:
            _bury(db, "rejected", "id = ?", id)
        elif verb is Verb.UNSEEN:
            db.execute("update message set claims = claims - 1 where id = ?", (id,))
        _put_back(db, "id = ?", id)


def _put_back(db: sqlite3.Connection, which: str, value: int) -> None:
    """Make messages ready again at their old place; those handed out too often move to their dead queue."""
    limit = "(select delivery_limit from queue where name = message.queue)"
    _bury(db, "delivery_limit", f"{which} and claims > {limit}", value)
    db.execute(f"update message set owner = null where {which}", (value,))


def _bury(db: sqlite3.Connection, reason: str, which: str, value: int) -> None:
    """Move messages to their dead queue, ready; one whose queue has none stays where it is."""
    dead = "(select dead_queue from queue where name = message.queue)"
    db.execute(
        f"update message set queue = {dead}, owner = null, claims = 0, dead_reason = ?"
        f" where {which} and {dead} is not null",
        (reason, value),
    )


def add_owner(db: sqlite3.Connection, uuid: str, lease_seconds: float) -> int:
    """Register an owner; returns its id, which was never used before."""
    row = db.execute(f"insert into owner (uuid, expires_at) values (?, {STEADY} + ?)", (uuid, lease_seconds))
    assert row.lastrowid is not None
    return row.lastrowid


def renew_owner(db: sqlite3.Connection, owner: int, lease_seconds: float) -> bool:
    """Extend an owner's lease on all its claims. False if it was rescued: none of its claims is its own any more."""
    changed = db.execute(f"update owner set expires_at = {STEADY} + ? where id = ?", (lease_seconds, owner))
    return changed.rowcount == 1


def is_owner(db: sqlite3.Connection, owner: int) -> bool:
    """Tell whether an owner was not rescued. A claim of one that was would never be rescued again: nobody knows it."""
    return db.execute("select 1 from owner where id = ?", (owner,)).fetchone() is not None


def other_owners(db: sqlite3.Connection, owner: int) -> list[tuple[int, str, bool]]:
    """Return (id, uuid, whether its lease has run out) of every other owner."""
    found = db.execute(f"select id, uuid, expires_at <= {STEADY} from owner where id <> ?", (owner,))
    return [(id, uuid, bool(has_expired)) for id, uuid, has_expired in found]


def rescue(db: sqlite3.Connection, owner: int, *, is_dead: bool) -> int:
    """Give everything an owner holds back to its queues, counted as delivered; returns how many messages that were.

    is_dead: known from its lock; else its lease must still be over, for it may have renewed since we looked.
    """
    gone = db.execute(f"delete from owner where id = ? and (? or expires_at <= {STEADY})", (owner, is_dead))
    if gone.rowcount == 0:
        return 0
    (held,) = db.execute("select count(*) from message where owner = ?", (owner,)).fetchone()
    _put_back(db, "owner = ?", owner)
    return int(held)


def on_reboot(db: sqlite3.Connection) -> None:
    """After a start of the machine: every owner is dead, and no message waits longer from now than its whole delay."""
    if has_table(db, "message"):
        db.execute("update owner set expires_at = 0")
        longest = f"{STEADY} + (select delay_seconds from queue where name = message.queue)"
        db.execute(f"update message set available_at = {longest} where available_at > {longest}")


def depths(db: sqlite3.Connection) -> Counter[str]:
    """Return how many messages are in each queue, claimed ones included."""
    return Counter(dict(db.execute("select name, rows from queue")))
