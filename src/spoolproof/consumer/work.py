"""A delivery on its way through the steps, and what each step found out about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.handler import Dedupe, Handler
from spoolproof.dead_letters.record import history_of
from spoolproof.errors import InvariantViolated
from spoolproof.ids import derived_id
from spoolproof.message import (
    ATTEMPT,
    FIRST_DEFERRED_AT,
    FIRST_UNKNOWN_AT,
    REPLAY_OF,
    Message,
    message_key,
)
from spoolproof.outbox.publish import Running
from spoolproof.outbox.transaction import PendingPublishes
from spoolproof.ports.broker import Incoming
from spoolproof.ports.dead_letters import Attempt

_SHOWN_CHARACTERS = 100


@dataclass(slots=True)
class Begun:
    """What this process knows of an ordered message from its earlier attempts: no copy of it carries that, for none is
    sent. again_at: when the next attempt may begin, in monotonic seconds."""

    failed: int = 0
    history: list[Attempt] = field(default_factory=list)
    first_deferred_at: datetime | None = None
    first_unknown_at: datetime | None = None
    again_at: float = -math.inf

    def recall(self, work: Work) -> None:
        """Tell the work of a delivery what is known."""
        work.begun = self
        if self.failed:
            work.failed, work.history = self.failed, self.history
        work.first_deferred_at = self.first_deferred_at or work.first_deferred_at
        work.first_unknown_at = self.first_unknown_at or work.first_unknown_at

    def note(self, work: Work, again_at: float) -> None:
        """Remember how far it has come."""
        self.failed, self.history, self.again_at = work.failed, work.history, again_at
        self.first_deferred_at, self.first_unknown_at = work.first_deferred_at, work.first_unknown_at


class GoBack(Exception):
    """An ordered delivery was held for long: it goes back to the broker, with all that came after it."""


@dataclass(slots=True)
class Work:
    """A delivery and what is known of it so far.

    key: of the inbox and of a dead letter, None for a message without an id. has_run: the handler has succeeded, and
    only the recording of that may still be missing; is_recorded: it is there. pending: what it published until then.
    claims: held until a person is asked.
    running: the handler's run in the last attempt, None if that never came to it. reruns: how often it ran again,
    uncounted, for no outage. admitted: None until a handler was found that takes it. outcome: what became of the
    delivery, as far as is known. begun: set if and only if its queue is ordered. again_seconds: after how long such a
    one is to be handled again; None when it has ended. refusal: why it could not be read as its queue says, if so.
    result: what the handler has returned.
    """

    delivery: Incoming
    message: Message
    received_at: datetime
    queue: str
    key: str | None
    failed: int
    history: list[Attempt] = field(default_factory=list)
    first_deferred_at: datetime | None = None
    first_unknown_at: datetime | None = None
    admitted: Admitted | None = None
    has_run: bool = False
    is_recorded: bool = False
    claims: Sequence[str] = ()
    pending: PendingPublishes = field(default_factory=PendingPublishes)
    running: Running | None = None
    reruns: int = 0
    outcome: str = "handled"
    begun: Begun | None = None
    again_seconds: float | None = None
    refusal: Refusal | None = None
    result: object = None

    @property
    def messages(self) -> int:
        """How many the handler's last run was to add to the outbox."""
        return 0 if self.running is None else self.running.messages

    @property
    def handler(self) -> Handler:
        """Who takes it. Only for what was admitted."""
        if self.admitted is None:
            raise InvariantViolated(f"{self.described}: nobody has admitted it yet")
        return self.admitted.handler

    @property
    def consumers(self) -> tuple[str, ...]:
        """Its queue and those that the handler had before: whose inbox row, claim or dead letter there may be."""
        return (self.queue, *self.handler.formerly)

    def admitted_as(self, handler: Handler) -> Admitted:
        """Return what was admitted for a handler. Raises InvariantViolated for another."""
        if self.admitted is None or self.admitted.handler is not handler:
            raise InvariantViolated(f"{self.described}: it was not admitted for {handler.name}")
        return self.admitted

    @property
    def described(self) -> str:
        """What the message is, for people."""
        type, id = (_shown(text) for text in (self.message.type, self.message.id))
        return f"type {type or 'unknown'}, queue {self.queue}, id {id or 'none'}"

    @property
    def told(self) -> dict[str, str]:
        """What every event about it says of it."""
        return {"about": self.described, "queue": self.queue, "message_id": _shown(self.message.id)}

    @property
    def content_key(self) -> str:
        """A key for a message without an id: equal for equal messages."""
        digest = hashlib.sha256(self.message.body).hexdigest()
        return derived_id(self.message.source, self.message.type, digest)

    @property
    def is_replay(self) -> bool:
        """Whether an operator sent it again."""
        return REPLAY_OF in self.message.headers

    @property
    def is_again(self) -> bool:
        """Whether the message was tried before, as far as anybody knows."""
        return self.failed > 0 or self.first_deferred_at is not None or self.delivery.delivery_count > 0

    @property
    def may_have_dead_letter(self) -> bool:
        """Whether there can be a dead letter of it; asking for every message would cost each a query."""
        return self.failed > 0 or self.is_replay or self.delivery.delivery_count > 0

    def for_handler(self) -> Delivery:
        """Return what the handler may know of it."""
        return Delivery(
            message=self.message,
            queue=self.queue,
            attempt=self.failed + 1,
            # the oldest name: what was called under it before the handler was renamed is not called anew
            idempotency_key=derived_id((*self.handler.formerly, self.queue)[0], self.key or self.message.id),
            is_replay=self.is_replay,
        )


@dataclass(frozen=True, slots=True)
class Admitted:
    """A payload and the handler that takes it."""

    handler: Handler
    payload: object

    def is_deduplicated(self, work: Work) -> bool:
        """Whether the inbox keeps this message from having its effects twice."""
        return self.handler.dedupe is Dedupe.INBOX and work.key is not None


class Refusal(Exception):
    """No handler can take the message. reason: of its dead letter; detail: for people."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


def work_of(delivery: Incoming, now: datetime, message: Message | None = None) -> Work:
    """Return what a delivery says about itself. No header of it can be wrong enough to keep it from its end.

    message: as it is to be read, if that is not as it came.
    """
    message = message or delivery.message
    attempt = message.headers.get(ATTEMPT, 0)
    return Work(
        delivery=delivery,
        message=message,
        received_at=now,
        queue=delivery.queue,
        key=message_key(message),
        failed=attempt if isinstance(attempt, int) and attempt > 0 else 0,
        history=list(history_of(message)),
        first_deferred_at=instant_of(message.headers.get(FIRST_DEFERRED_AT), now),
        first_unknown_at=instant_of(message.headers.get(FIRST_UNKNOWN_AT), now),
    )


def instant_of(value: object, now: datetime) -> datetime | None:
    """Return a header's instant, at most `now`: what began in the future would never be over. None for what is none,
    also one without a zone."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
        return None if instant.tzinfo is None else min(now, instant.astimezone(UTC))
    except (ValueError, OverflowError):  # the second near the years 1 and 9999
        return None


def _shown(text: str) -> str:
    """Return a foreign text as a log line can take it."""
    text = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return text if text.isprintable() else ascii(text)
