"""The public surface, pinned: a name that appears or goes is a decision, not an accident."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Unpack, get_type_hints

import spoolproof
from spoolproof.parts import FACETS

PUBLIC = [
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


OPTIONS = [
    *("at", "correlation_id", "delay", "destination", "expires", "headers", "id", "key", "routing_key"),
    *("subject", "type"),
]
ON_SERVICE = [
    "around_handle",
    "around_publish",
    "broker",
    "cancel",
    "cron",
    "drain",
    "every",
    "health",
    "lifespan",
    "name",
    "on",
    "on_start",
    "on_stop",
    "provides",
    "publish",
    "publish_sync",
    "request",
    "runtime",
    "settings",
    "start",
    "stop",
    "test",
    "transaction",
    "upcast",
]
SERVICE_NAMES_MAX = 34  #: a class that offers more is read by nobody


def test_a_service_offers_exactly_these() -> None:
    """What is written often is a verb of Service; what is written seldom stands behind a facet of its feature."""
    names = {name for name in dir(spoolproof.Service("shop")) if not name.startswith("_")}

    assert ON_SERVICE == sorted(names)
    assert len(names) + len(FACETS) <= SERVICE_NAMES_MAX


def test_the_public_names_are_exactly_these() -> None:
    """Users import from `spoolproof`; everything else may move."""
    assert PUBLIC == sorted(spoolproof.__all__, key=lambda name: (not name[0].isupper(), name))
    assert all(hasattr(spoolproof, name) for name in PUBLIC)


def test_every_verb_that_publishes_takes_the_same_options() -> None:
    """They stand in one list: what one verb learns, all know, with completion in an editor and checked types."""
    verbs: list[Callable[..., object]] = [
        spoolproof.Service.publish,
        spoolproof.Service.publish_sync,
        spoolproof.Transaction.publish,
        spoolproof.SyncTransaction.publish,
    ]

    assert OPTIONS == sorted(spoolproof.PublishOptions.__annotations__)
    assert [Unpack[spoolproof.PublishOptions]] * 4 == [get_type_hints(verb)["options"] for verb in verbs]
    for verb in verbs[:2]:
        assert ["options", "payload", "self", "transaction"] == sorted(inspect.signature(verb).parameters)
    for verb in verbs[2:]:
        assert ["options", "payload", "self"] == sorted(inspect.signature(verb).parameters)


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
