"""Spoolproof makes services crash-proof: what a service has accepted is never lost, whatever dies.

Names are loaded when they are first asked for, so that `spoolproof.policies` works where nothing but the standard
library is installed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spoolproof.codec import event
    from spoolproof.consumer.delivery import Delivery
    from spoolproof.consumer.options import HandlerOptions
    from spoolproof.errors import (
        BrokerUnavailable,
        CodecError,
        InvalidMessage,
        InvalidSchedule,
        MessageTooLarge,
        NotInTransaction,
        NotStarted,
        OutboxFull,
        OutboxMissing,
        RegistrationError,
        ScheduleFull,
        SchemaOutdated,
        SettingsError,
        SpoolFull,
        SpoolproofError,
        StoreBusy,
        StoreUnavailable,
        TransactionError,
        TransactionTooLong,
        Unavailable,
        UnknownType,
        UnsupportedTransaction,
        WrongDatabase,
    )
    from spoolproof.message import Message
    from spoolproof.outbox.options import PublishOptions
    from spoolproof.outbox.receipt import Place, Receipt
    from spoolproof.outbox.sync_transaction import SyncTransaction
    from spoolproof.outbox.transaction import Transaction
    from spoolproof.outcome import Ack, DeadLetter, Defer, Park, RetryLater
    from spoolproof.requests.errors import RequestTimeout
    from spoolproof.service import Service
    from spoolproof.settings import Settings, load_settings

__version__ = "0.1.0"

_HOMES = {
    "codec": ("event",),
    "consumer.delivery": ("Delivery",),
    "message": ("Message",),
    "consumer.options": ("HandlerOptions",),
    "outbox.options": ("PublishOptions",),
    "outbox.receipt": ("Place", "Receipt"),
    "outbox.sync_transaction": ("SyncTransaction",),
    "outbox.transaction": ("Transaction",),
    "outcome": ("Ack", "DeadLetter", "Defer", "Park", "RetryLater"),
    "requests.errors": ("RequestTimeout",),
    "service": ("Service",),
    "settings": ("Settings", "load_settings"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Ack",
    "BrokerUnavailable",
    "CodecError",
    "DeadLetter",
    "Defer",
    "Delivery",
    "HandlerOptions",
    "InvalidMessage",
    "InvalidSchedule",
    "Message",
    "MessageTooLarge",
    "NotInTransaction",
    "NotStarted",
    "OutboxFull",
    "OutboxMissing",
    "Park",
    "Place",
    "PublishOptions",
    "Receipt",
    "RegistrationError",
    "RequestTimeout",
    "RetryLater",
    "ScheduleFull",
    "SchemaOutdated",
    "Service",
    "Settings",
    "SettingsError",
    "SpoolFull",
    "SpoolproofError",
    "StoreBusy",
    "StoreUnavailable",
    "SyncTransaction",
    "Transaction",
    "TransactionError",
    "TransactionTooLong",
    "Unavailable",
    "UnknownType",
    "UnsupportedTransaction",
    "WrongDatabase",
    "event",
    "load_settings",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
