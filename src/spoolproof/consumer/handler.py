"""A registered handler: the user's function, what it takes, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from spoolproof.codec import EventType
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.ledger import Ledger
from spoolproof.consumer.policy_gate import GatingPolicy
from spoolproof.message import Message
from spoolproof.outbox.sync_transaction import SyncTransaction
from spoolproof.outbox.transaction import Transaction

HandlerFunction = Callable[..., object]
_NOTHING: Mapping[str, object] = {}
Translate = Callable[[Message], Message]


class Dedupe(StrEnum):
    """inbox: the effects of a message happen once. none: at least once, no inbox row, no transaction."""

    INBOX = "inbox"
    NONE = "none"


class OnUnknown(StrEnum):
    """What follows when the process that ran the message ended before the outcome was known. retry: it runs again under
    the same idempotency key. park: a person decides."""

    RETRY = "retry"
    PARK = "park"


class OnKeyFailure(StrEnum):
    """What becomes of later messages of an ordering key when one is given up. skip: they go on. hold_key: they wait
    until that one was replayed with success, or discarded."""

    SKIP = "skip"
    HOLD_KEY = "hold_key"


class Argument(StrEnum):
    """What one parameter of a handler is given."""

    PAYLOAD = "payload"
    DELIVERY = "delivery"
    TRANSACTION = "transaction"
    DEPENDENCY = "dependency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler and how it is run. types: wire names. All times in seconds."""

    queue: str
    function: HandlerFunction
    arguments: tuple[tuple[str, Argument], ...]
    types: tuple[str, ...]
    models: tuple[type | str, ...]
    timeout_seconds: float
    concurrency: int
    prefetch: int
    attempts: int
    delays_seconds: tuple[float, ...]
    dedupe: Dedupe
    gates: tuple[GatingPolicy, ...] = ()
    criticality: str = "critical_plus"
    on_unknown: OnUnknown | None = None  #: None: runs are not claimed
    is_ordered: bool = False
    on_key_failure: OnKeyFailure = OnKeyFailure.SKIP
    batch: int | None = None  #: messages at most in one call; None: one, and not as a list
    batch_seconds: float = 0.0  #: how long the first of them waits for others
    formerly: tuple[str, ...] = ()  #: queues it had before: what is still in them is its own
    is_sync: bool = False  #: a plain function, which runs in a thread
    foreign_keys: Mapping[str, EventType] = field(
        default_factory=dict
    )  #: routing key → what is under it, without a type
    translate: Translate | None = None  #: makes a message of ours of another one
    message_id: Callable[[Any], object] | None = None  #: payload → id, for messages without
    hashes_missing_id: bool = False
    dependencies: Mapping[str, Any] = field(default_factory=dict)  #: parameter → type that a provider gives
    ledger: Ledger | None = None  #: what is written with the end of each of its messages

    @property
    def name(self) -> str:
        """Module and function, as people look for it."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def wants_transaction(self) -> bool:
        """Whether the handler takes the transaction its inbox row is in."""
        return any(argument is Argument.TRANSACTION for _, argument in self.arguments) or any(
            is_session(kind) for kind in self.dependencies.values()
        )

    @property
    def wants_delivery(self) -> bool:
        """Whether the handler takes a Delivery; for the others none need be made."""
        return any(argument is Argument.DELIVERY for _, argument in self.arguments)

    def call(
        self,
        payload: object,
        delivery: Delivery | None,
        tx: Transaction | SyncTransaction | None,
        others: Mapping[str, object] = _NOTHING,
    ) -> Coroutine[Any, Any, object]:
        """Call the user's function with what it asks for; returns its coroutine, or the result of a plain one. payload:
        also for a batch handler that of one message."""
        if self.batch is not None and not isinstance(payload, list):
            payload = [payload]
        given: dict[Argument, object] = {
            Argument.PAYLOAD: payload,
            Argument.DELIVERY: delivery,
            Argument.TRANSACTION: tx,
        }
        called: Any = self.function
        made: Coroutine[Any, Any, object] = called(
            **{name: given[argument] for name, argument in self.arguments}, **others
        )
        return made


def is_session(kind: object) -> bool:
    """Tell whether a type is SQLAlchemy's AsyncSession, or made from it."""
    return any(
        (base.__module__.partition(".")[0], base.__name__) == ("sqlalchemy", "AsyncSession")
        for base in getattr(kind, "__mro__", ())
    )
