"""What a handler may know of the delivery it serves."""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message on its way through a handler; ask for it with a parameter annotated `Delivery`.

    message: as received. queue: the consumer's name. attempt: 1 on the first try. idempotency_key: the same text in
    every attempt of this message by this consumer, for calls to systems that deduplicate. is_replay: an operator sent
    it again.
    """

    message: Message
    queue: str
    attempt: int
    idempotency_key: str
    is_replay: bool
