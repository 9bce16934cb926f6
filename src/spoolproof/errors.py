"""Every error Spoolproof raises on purpose.

::

    SpoolproofError
    ├── SettingsError            one or more settings are wrong; `faults` lists all of them
    ├── RegistrationError        a handler or event type cannot be served as declared
    ├── MissingExtra             an optional dependency is not installed
    ├── InvalidMessage           a message field breaks a rule of the wire
    │   └── MessageTooLarge      body or headers are over their limit
    ├── CodecError               a payload and its bytes do not fit each other
    │   └── UnknownType          no model is registered for this class or wire name
    ├── TransactionError         publish(transaction=…) cannot join that transaction
    │   ├── UnsupportedTransaction   not a handle we can write through
    │   ├── NotInTransaction     the handle has no open transaction
    │   ├── WrongDatabase        the handle belongs to another database than the store
    │   └── OutboxMissing        the database has no outbox table
    ├── TransactionTooLong       a user transaction held the SQLite writer over its limit
    ├── SchemaOutdated           the store's schema is not the one this release needs
    ├── LimitReached             a bounded thing is full; `current` and `maximum` say how
    │   ├── OutboxFull           rows waiting in the outbox
    │   ├── StoreBusy            requests waiting for the SQLite writer
    │   └── WindowFull           publishes waiting for their confirm
    ├── Unavailable              infrastructure is away; burns no attempt
    │   ├── StoreUnavailable     the database
    │   └── BrokerUnavailable    the broker
    │       ├── BrokerBlocked    the broker is connected and has stopped reading publishes
    │       └── BrokerTooOld     the broker's version is under the supported one
    ├── EncodeError              a message the broker's protocol cannot carry
    ├── NotFound                 no such dead letter or other thing
    ├── Conflict                 the thing is in a state that refuses this verb
    └── InvariantViolated        a promise of ours is broken; always a bug

What a handler raises to steer its delivery is in `outcome`, not here.
"""

from __future__ import annotations

from collections.abc import Sequence


class SpoolproofError(Exception):
    """Base of every error raised by Spoolproof on purpose."""


class SettingsError(SpoolproofError):
    """One or more settings are wrong."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("wrong settings:\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class RegistrationError(SpoolproofError):
    """A handler or event type cannot be served as declared."""


class MissingExtra(SpoolproofError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed; install it with: pip install 'spoolproof[{extra}]'")


class InvalidMessage(SpoolproofError):
    """A message field breaks a rule of the wire."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        self.value = value
        shown = repr(value)
        super().__init__(f"{field}={shown if len(shown) <= 80 else shown[:77] + '...'}: {reason}")


class MessageTooLarge(InvalidMessage):
    """Body or headers are over their limit."""


class CodecError(SpoolproofError):
    """A payload and its bytes do not fit each other."""


class UnknownType(CodecError):
    """No model is registered for this class or wire name."""


class TransactionError(SpoolproofError):
    """`publish(transaction=…)` cannot join that transaction."""


class UnsupportedTransaction(TransactionError):
    """The object is not a transaction handle Spoolproof can write through."""

    def __init__(self, handle: object, supported: Sequence[str]) -> None:
        self.supported = tuple(supported)
        kind = f"{type(handle).__module__}.{type(handle).__qualname__}"
        super().__init__(f"transaction={kind} is not supported here; pass one of: {', '.join(self.supported)}")


class NotInTransaction(TransactionError):
    """The handle has no open transaction."""


class WrongDatabase(TransactionError):
    """The handle belongs to another database than the service's store."""


class OutboxMissing(TransactionError):
    """The database has no outbox table; run `spoolproof migrate`."""


class TransactionTooLong(SpoolproofError):
    """A transaction held the SQLite writer over its limit and was rolled back."""


class SchemaOutdated(SpoolproofError):
    """The store's schema is not the one this release needs."""

    def __init__(self, found: int, needed: int, store: str) -> None:
        self.found = found
        self.needed = needed
        remedy = "spoolproof migrate" if found < needed else "a release of spoolproof that knows this schema"
        super().__init__(f"the schema of {store} is at version {found}, this release needs {needed}; run: {remedy}")


class LimitReached(SpoolproofError):
    """A bounded thing is full; nothing was written."""

    what = "limit"

    def __init__(self, current: int, maximum: int, remedy: str = "slow down and try again") -> None:
        self.current = current
        self.maximum = maximum
        super().__init__(f"{self.what}: {current} of at most {maximum}; {remedy}")


class OutboxFull(LimitReached):
    """Too many rows wait in the outbox."""

    what = "rows waiting in the outbox"


class StoreBusy(LimitReached):
    """Too many requests wait for the SQLite writer."""

    what = "requests waiting for the SQLite writer"


class WindowFull(LimitReached):
    """Too many publishes wait for their confirm."""

    what = "publishes waiting for their confirm"


class Unavailable(SpoolproofError):
    """Infrastructure is away. Never counts as an attempt of the message that met it."""


class StoreUnavailable(Unavailable):
    """The database cannot be reached or refused to work."""


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached."""


class BrokerBlocked(BrokerUnavailable):
    """The broker is connected and has stopped reading publishes (resource alarm)."""


class BrokerTooOld(BrokerUnavailable):
    """The broker's version is under the supported one."""


class EncodeError(SpoolproofError):
    """The broker's protocol cannot carry this message."""


class NotFound(SpoolproofError):
    """There is no such thing."""


class Conflict(SpoolproofError):
    """The thing is in a state that refuses this verb."""


class InvariantViolated(SpoolproofError):
    """A promise of ours is broken. Always a bug; please report it with its text."""
