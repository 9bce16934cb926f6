"""Which handler serves a message: by queue, then by type.

A queue may have several handlers for different types; one type has one handler per queue. Two handlers of one queue
share its subscription, so they must agree on its options.
"""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof import limits
from spoolproof.consumer.dependencies import Dependencies
from spoolproof.consumer.handler import Dedupe, Handler, OnKeyFailure
from spoolproof.consumer.policy_gate import label_of
from spoolproof.errors import InvalidMessage, RegistrationError
from spoolproof.message import Message, check_short_text
from spoolproof.ports.broker import QueueSpec


class Router:
    """All handlers of a service."""

    def __init__(self) -> None:
        self._queues: dict[str, list[Handler]] = {}

    def add(self, handler: Handler) -> None:
        """Register a handler. Raises RegistrationError for a second one of the same queue and type."""
        beside = self._queues.setdefault(handler.queue, [])
        for other in beside:
            shared = set(other.types) & set(handler.types)
            if shared:
                raise RegistrationError(
                    f"queue {handler.queue!r} already has a handler for {', '.join(sorted(shared))}: "
                    f"{other.function.__qualname__}; give this one another queue="
                )
            self._check_foreign(other, handler)
            if differing := [one for one, value in _shared(other).items() if value != _shared(handler)[one]]:
                told = ", ".join(f"{one}={_shared(other)[one]}" for one in differing)
                name = other.function.__qualname__
                raise RegistrationError(f"queue {handler.queue!r}: {name} has {told}; handlers of one queue share them")
        beside.append(handler)

    @staticmethod
    def _check_foreign(other: Handler, handler: Handler) -> None:
        name = other.function.__qualname__
        if other.translate is not None and handler.translate is not None:
            raise RegistrationError(
                f"queue {handler.queue!r}: {name} has a foreign= function already, which is given all that are foreign"
            )
        twice = sorted(other.foreign_keys.keys() & handler.foreign_keys.keys())
        if twice:
            raise RegistrationError(
                f"queue {handler.queue!r}: {name} takes routing key {twice[0]!r} already; one key is one model's"
            )

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that have handlers."""
        return tuple(self._queues)

    @property
    def former(self) -> tuple[str, ...]:
        """The queues its handlers had before."""
        return tuple(dict.fromkeys(name for queue in self._queues for name in self.former_of(queue)))

    def former_of(self, queue: str) -> tuple[str, ...]:
        """Return the queues that those of a queue had before."""
        return tuple(dict.fromkeys(name for handler in self.handlers(queue) for name in handler.formerly))

    def holds_keys(self, queue: str) -> bool:
        """Whether a queue holds the key of a message that was given up."""
        return any(handler.on_key_failure is OnKeyFailure.HOLD_KEY for handler in self.handlers(queue)[:1])

    def handlers(self, queue: str) -> Sequence[Handler]:
        """Return the handlers of a queue; perhaps none."""
        return self._queues.get(queue, ())

    def faults_without_inbox(self) -> list[str]:
        """Return what cannot be served where a store remembers nothing of a message for other processes."""
        return [
            f"queue {queue!r}: SPOOLPROOF_STORE=none has no inbox to tell a second delivery by, and nothing to hold "
            'a key back with; name a store, or register it with dedupe="none" and without ordered=True'
            for queue, handlers in self._queues.items()
            if any(handler.dedupe is not Dedupe.NONE or handler.is_ordered for handler in handlers)
        ]

    def type_of(self, queue: str, message: Message) -> str:
        """Return the wire name to read a message as: its own, or, for a foreign one without a type, the only type
        this queue has; "" when neither tells."""
        if message.type:
            return message.type
        names = [name for handler in self.handlers(queue) for name in handler.types]
        return names[0] if len(names) == 1 else ""

    def handler_for(self, queue: str, type_name: str) -> Handler | None:
        """Return the handler for a type on a queue, or None."""
        for handler in self.handlers(queue):
            if type_name in handler.types:
                return handler
        return None

    def faults(self, dependencies: Dependencies, consumer_timeout_seconds: float) -> list[str]:
        """Return what keeps handlers from being served, now that everything is registered."""
        limit = consumer_timeout_seconds * 2 / 3
        faults: list[str] = []
        for queue, handlers in self._queues.items():
            try:
                check_short_text("queue", queue)
            except InvalidMessage as error:
                faults.append(str(error))
            for handler in handlers:
                faults += dependencies.faults(handler)
                if handler.timeout_seconds > limit:
                    faults.append(
                        f"queue {queue!r}: timeout={handler.timeout_seconds:g} s is over two thirds of the broker's "
                        f"consumer timeout ({limit:g} s); raise SPOOLPROOF_CONSUMER_TIMEOUT_SECONDS and the broker's"
                    )
        return faults

    def specs(self) -> tuple[QueueSpec, ...]:
        """Return the queues to declare; those that handlers had before as leaving."""
        specs = [_spec(queue, handlers) for queue, handlers in self._queues.items()]
        for queue, handlers in self._queues.items():
            specs += [_spec(name, handlers, is_leaving=True) for name in self.former_of(queue)]
        return tuple(specs)

    def check(self) -> list[str]:
        """Return what is wrong with the queues taken together."""
        return [
            f"queue {name!r} stands in formerly= and has a handler of its own: give that one another queue="
            for name in self.former
            if name in self._queues
        ]


def _spec(queue: str, handlers: Sequence[Handler], *, is_leaving: bool = False) -> QueueSpec:
    is_ordered = handlers[0].is_ordered
    return QueueSpec(
        name=queue,
        types=tuple(sorted({name for handler in handlers for name in (*handler.types, *handler.foreign_keys)})),
        delivery_limit=limits.ORDERED_DELIVERY_LIMIT if is_ordered else limits.DELIVERY_LIMIT,
        is_ordered=is_ordered,
        is_leaving=is_leaving,
    )


def _shared(handler: Handler) -> dict[str, object]:
    return {
        "concurrency": handler.concurrency,
        "prefetch": handler.prefetch,
        "gate": ", ".join(sorted(label_of(policy) for policy in handler.gates)) or "none",
        "criticality": handler.criticality,
        "ordered": handler.is_ordered,
        "on_key_failure": handler.on_key_failure.value,
        "batch": handler.batch,
        "batch_seconds": handler.batch_seconds,
    }
