"""What is done to the shop, and in which order: a plan drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from spoolproof.testing.demo.backend import Servers
from spoolproof.testing.demo.processes import DidNotFire, Process
from spoolproof.testing.servers import PostgresServer, RabbitMQServer

FROZEN_LEASES = 4 / 3  #: a process stands still for so many leases: it wakes up to find them gone
KILLED_SECONDS = 0.5  #: before the process is started again, as a supervisor of processes does
FROZEN_SECONDS = 3.0  #: what has no leases stands still for so long: over the time limit of a call
SERVER_DOWN_SECONDS = 2.0
SERVER_FROZEN_SECONDS = 6.0  #: over a statement's limit of 5 s

Server = PostgresServer | RabbitMQServer


class Sign(Enum):
    """What shows that a fault was recovered from."""

    ORDER_ACCEPTED = auto()
    PAYMENT_MADE = auto()
    DELIVERY_MADE = auto()
    STOCK_KNOWN = auto()


class Suffered(msgspec.Struct, frozen=True):
    """A fault that happened. Seconds after the start of the load, from the strike, and from the heal.

    detected_seconds: None when nobody noticed before it was over.
    """

    kind: str
    struck_seconds: float
    detected_seconds: float | None
    recovered_seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    strike: raises DidNotFire. heal: returns when what was broken is started or continued. hold_seconds: how long it
    lasts at least. signs: all of these must be seen after it. is_noticed: whether a probe fails now.
    """

    kind: str
    strike: Callable[[], None]
    heal: Callable[[], None]
    hold_seconds: float
    signs: frozenset[Sign]
    is_noticed: Callable[[], bool]


def planned(kinds: Sequence[Fault], rounds: int, draw: random.Random) -> list[Fault]:
    """Return every kind once per round, each round in an order of its own."""
    return [fault for _ in range(rounds) for fault in draw.sample(kinds, len(kinds))]


def process_faults(process: Process, sign: Sign, frozen_seconds: float) -> list[Fault]:
    """Return how a process is broken."""
    signs = frozenset({sign})

    def is_silent() -> bool:
        return not process.answers()

    return [
        Fault(f"kill -9 {process.name}", process.kill, process.start, KILLED_SECONDS, signs, is_silent),
        Fault(f"freeze {process.name}", process.freeze, process.thaw, frozen_seconds, signs, is_silent),
    ]


def server_faults(servers: Servers, is_away: Callable[[str], bool]) -> list[Fault]:
    """Return how the servers are broken. is_away: whether a service's health says so of `rabbitmq` or `db`."""
    rabbitmq, postgres = servers.rabbitmq, servers.postgres
    paid = frozenset({Sign.PAYMENT_MADE})
    everything = frozenset({Sign.PAYMENT_MADE, Sign.ORDER_ACCEPTED})

    def is_broker_away() -> bool:
        return is_away("rabbitmq")

    def is_database_away() -> bool:
        return is_away("db")

    verbs = ("stop", "freeze", "kill -9")
    return [
        *(_server_fault(verb, "rabbitmq", [rabbitmq], paid, is_broker_away) for verb in verbs),
        *(_server_fault(verb, "postgresql", [postgres], everything, is_database_away) for verb in verbs),
        *(_server_fault(verb, "both servers", [rabbitmq, postgres], everything, is_broker_away) for verb in verbs[1:]),
    ]


def _server_fault(
    verb: str, name: str, group: Sequence[Server], signs: frozenset[Sign], is_noticed: Callable[[], bool]
) -> Fault:
    def strike() -> None:
        for server in group:
            {"stop": server.stop, "freeze": server.freeze, "kill -9": server.kill}[verb]()
        for server in group:
            if server.is_running() != (verb == "freeze"):
                raise DidNotFire(f"{server.kind}: {verb} had no effect")

    def heal() -> None:
        for server in group:
            server.start()

    seconds = SERVER_FROZEN_SECONDS if verb == "freeze" else SERVER_DOWN_SECONDS
    return Fault(f"{verb} {name}", strike, heal, seconds, signs, is_noticed)
