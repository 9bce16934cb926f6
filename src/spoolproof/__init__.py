"""Spoolproof makes services crash-proof: what a service has accepted is never lost, whatever dies."""

from spoolproof.codec import event
from spoolproof.consumer.delivery import Delivery
from spoolproof.errors import (
    BrokerUnavailable,
    CodecError,
    InvalidMessage,
    MessageTooLarge,
    NotInTransaction,
    OutboxFull,
    OutboxMissing,
    RegistrationError,
    SchemaOutdated,
    SettingsError,
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
from spoolproof.outbox.publish import Place, Receipt
from spoolproof.outbox.transaction import Transaction
from spoolproof.outcome import Ack, DeadLetter, Defer, RetryLater
from spoolproof.service import NotStarted, Service
from spoolproof.settings import Settings, load_settings

__version__ = "0.1.0"

__all__ = [
    "Ack",
    "BrokerUnavailable",
    "CodecError",
    "DeadLetter",
    "Defer",
    "Delivery",
    "InvalidMessage",
    "Message",
    "MessageTooLarge",
    "NotInTransaction",
    "NotStarted",
    "OutboxFull",
    "OutboxMissing",
    "Place",
    "Receipt",
    "RegistrationError",
    "RetryLater",
    "SchemaOutdated",
    "Service",
    "Settings",
    "SettingsError",
    "SpoolproofError",
    "StoreBusy",
    "StoreUnavailable",
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
