"""A unit of work as building blocks see it that may not import who makes it: a transaction in which one can publish."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from spoolproof.ports.transaction import OwnTransaction


class Unit(Protocol):
    """What `outbox.transaction.Transaction` is; whoever is given one publishes through it."""

    @property
    def inner(self) -> OwnTransaction:
        """The database transaction."""


class Units(Protocol):
    """Opens units of work."""

    def open(self) -> AbstractAsyncContextManager[Unit]:
        """Open one: committed when the block ends, rolled back when it raises. Raises StoreUnavailable."""

    def running(self) -> Unit | None:
        """Return that of the handler in whose context this is called, if it has one that is open."""
