"""The public surface, pinned: a name that appears or goes is a decision, not an accident."""

from __future__ import annotations

import inspect

import spoolproof
from spoolproof.parts import FACETS

PUBLIC = [
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


ON_SERVICE = [
    "broker",
    "drain",
    "health",
    "lifespan",
    "name",
    "on",
    "publish",
    "runtime",
    "settings",
    "start",
    "stop",
    "transaction",
    "upcast",
]
SERVICE_NAMES_MAX = 32  #: a class that offers more is read by nobody


def test_a_service_offers_exactly_these() -> None:
    """What is written often is a verb of Service; what is written seldom stands behind a facet of its feature."""
    names = {name for name in dir(spoolproof.Service("shop")) if not name.startswith("_")}

    assert ON_SERVICE == sorted(names)
    assert len(names) + len(FACETS) <= SERVICE_NAMES_MAX


def test_the_public_names_are_exactly_these() -> None:
    """Users import from `spoolproof`; everything else may move."""
    assert PUBLIC == sorted(spoolproof.__all__, key=lambda name: (not name[0].isupper(), name))
    assert all(hasattr(spoolproof, name) for name in PUBLIC)


def test_the_signature_of_publish_is_stable() -> None:
    """`Service.publish` and `Transaction.publish` take the same arguments, but for the transaction itself."""
    on_service = set(inspect.signature(spoolproof.Service.publish).parameters)
    on_transaction = set(inspect.signature(spoolproof.Transaction.publish).parameters)

    assert {"transaction"} == on_service - on_transaction
    assert set() == on_transaction - on_service


def test_every_public_class_and_function_is_documented() -> None:
    """The docstring is the reference."""
    undocumented = [
        f"{name}.{member}"
        for name in PUBLIC
        for member, value in vars(getattr(spoolproof, name)).items()
        if inspect.isfunction(value) and not member.startswith("_") and not value.__doc__
    ]

    assert [] == undocumented
    assert [] == [name for name in PUBLIC if not getattr(spoolproof, name).__doc__]
