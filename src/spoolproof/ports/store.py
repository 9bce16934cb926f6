"""A database with everything Spoolproof keeps in it.

Foreign errors never pass this port: a database that is away is StoreUnavailable, whatever the driver calls it. Errors
of the user's own statements inside a transaction pass as they are.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from spoolproof.ports.dead_letters import DeadLetters
from spoolproof.ports.inbox import Inbox
from spoolproof.ports.leases import Leases
from spoolproof.ports.outbox import Outbox
from spoolproof.ports.retention import Retention
from spoolproof.ports.services import Services
from spoolproof.ports.state import State
from spoolproof.ports.transaction import OwnTransaction, StoreTransaction
from spoolproof.ports.wakeup import WakeUp

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema and its SQL text."""

    version: int
    name: str
    sql: str


class Migrations(Protocol):
    """The schema's version and the way to the newest one."""

    @property
    def needed(self) -> int:
        """The version this release needs."""

    async def found(self) -> int:
        """The version in the database; 0 when there is none."""

    async def apply(self) -> list[str]:
        """Bring the schema to `needed`, each step in a transaction; returns the names of the steps run, perhaps none.
        Safe to run from several processes at once."""

    def sql(self, above: int = 0) -> str:
        """Return the statements of every step above a version, for those who run them by other means."""


class Store(Protocol):
    """The parts of one database."""

    # properties, so that an adapter may say which class of its own each part is
    @property
    def outbox(self) -> Outbox: ...  # noqa: D102
    @property
    def services(self) -> Services: ...  # noqa: D102
    @property
    def inbox(self) -> Inbox: ...  # noqa: D102
    @property
    def dead_letters(self) -> DeadLetters: ...  # noqa: D102
    @property
    def leases(self) -> Leases: ...  # noqa: D102
    @property
    def retention(self) -> Retention: ...  # noqa: D102
    @property
    def state(self) -> State: ...  # noqa: D102
    @property
    def migrations(self) -> Migrations: ...  # noqa: D102
    @property
    def wakeup(self) -> WakeUp: ...  # noqa: D102

    def port(self, kind: type[T]) -> T:
        """Return a further port, one that not every service needs, by its type; always the same adapter.

        Raises InvariantViolated for a port that `wiring` does not list.
        """

    @property
    def name(self) -> str:
        """Its URL without password, for messages to people."""

    async def start(self) -> None:
        """Connect. Raises StoreUnavailable."""

    async def stop(self) -> None:
        """Close every connection and thread. Idempotent, safe before start."""

    async def ping(self) -> None:
        """Return if the database answers now and, as far as it says, takes writes. Raises StoreUnavailable."""

    def is_conflict(self, error: BaseException) -> bool:
        """Tell whether an error of the user's own transaction, or the cause of one, says that it lost against another
        and may succeed when run again: a deadlock, a serialisation failure."""

    def transaction(self) -> AbstractAsyncContextManager[OwnTransaction]:
        """Open a transaction: committed when the block ends, rolled back when it raises.

        Raises StoreUnavailable when it cannot be opened or committed; then the outcome of the COMMIT is unknown.
        """

    async def adopt(self, handle: object) -> StoreTransaction:
        """Wrap the user's own open transaction. Never commits, rolls back or closes it.

        Raises UnsupportedTransaction listing what is supported, NotInTransaction, WrongDatabase.
        """
