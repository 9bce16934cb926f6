"""What is told of consumers: what failed and what becomes of it, what is held back and why, what nobody reads."""

from __future__ import annotations

from spoolproof.telemetry.events import DEBUG, ERROR, INFO, WARNING, Event
from spoolproof.telemetry.metrics import Kind, counter, declare, gauge, histogram

DELIVERIES = counter(
    "consumer_deliveries_total",
    "Deliveries by what became of them: handled, duplicate, retried (a copy waits, counted), deferred (a copy waits, "
    "uncounted), dead_letter, stale (the broker had taken it back), or returned to the queue.",
    *("consumer", "outcome"),
)
HANDLER_SECONDS = histogram("consumer_handler_seconds", "How long a handler ran, however it ended.", "consumer")
QUEUE_MESSAGES = gauge(
    "queue_messages",
    "Messages that wait in a queue, told by every process that reads it: use max. Some brokers count what is with a "
    "consumer too.",
    "queue",
)
CONSUMER_IN_FLIGHT = gauge("consumer_in_flight", "Deliveries being handled.", "consumer")
GATE_OPEN = gauge("consumer_gate_open", "1 while handlers run, 0 while the store or a policy holds them.", "consumer")
RETRY_COPIES = counter("retry_copies_total", "Copies that wait in a delay queue, by its seconds.", "consumer", "tier")
LAST_ACK = gauge("last_ack_timestamp_seconds", "When the delivery that was last handled had come.", "queue")
END_TO_END = declare(
    "end_to_end_seconds",
    Kind.HISTOGRAM,
    "From a message's own time, which its publisher set, to when the handler that brought it to its end began.",
    labels=("queue",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0),
)
THREADS_ABANDONED = gauge("handler_threads_abandoned", "Threads of handlers whose attempt is over.", "handler")


class AttemptFailed(
    Event,
    name="consumer.failed",
    level=WARNING,
    line="handler {handler} {how}: {error} ({about}, attempt {attempt} of {attempts}); {next}",
):
    """An attempt failed and counts; there will be another. how: `failed`, or `asked to wait`."""

    handler: str
    how: str
    error: str
    about: str
    queue: str
    message_id: str
    attempt: int
    attempts: int
    next: str


class AttemptDeferred(
    Event,
    name="consumer.deferred",
    level=WARNING,
    line="handler {handler} {how}: {error} ({about}, not counted); {next}",
):
    """An attempt could not be made to its end, for nothing that is the message's fault; there will be another.
    how: `met an outage`, or `asked to wait`."""

    handler: str
    how: str
    error: str
    about: str
    queue: str
    message_id: str
    next: str


class RunUnknown(
    Event,
    name="consumer.run_unknown",
    level=WARNING,
    line="the process that ran a message ended before the outcome was known ({about}); {next}",
    counter="consumer_unknown_total",
    labels=("consumer=queue",),
):
    """What a handler called may have happened, and nobody recorded it."""

    about: str
    queue: str
    message_id: str
    next: str


class BatchFailed(
    Event,
    name="consumer.batch_failed",
    level=INFO,
    line="handler {handler} failed for a batch of {messages}: {error}; each runs by itself now",
):
    """A batch was rolled back; no attempt of any message in it counts."""

    handler: str
    messages: int
    error: str


class NotTaken(
    Event, name="consumer.not_taken", level=WARNING, line="no handler took a message: {error} ({about}); {next}"
):
    """No handler here takes a message; another release may."""

    error: str
    about: str
    queue: str
    message_id: str
    next: str


class HandlerGaveUp(
    Event,
    name="consumer.given_up",
    level=ERROR,
    line="handler {handler} {how}: {error} ({about}, attempt {attempt} of {attempts}); given up, {reason}: "
    "it is a dead letter now",
):
    """The last attempt failed, or trying again makes no sense. how: `failed`, or `refused the message`."""

    handler: str
    how: str
    error: str
    about: str
    queue: str
    message_id: str
    attempt: int
    attempts: int
    reason: str


class DeadLetterRecorded(
    Event,
    name="dead_letter.recorded",
    level=ERROR,
    line="given up, {reason}: {error} ({about}); it is a dead letter now",
):
    """A message was given up that no handler has seen, or that none survives."""

    reason: str
    error: str
    about: str
    queue: str
    message_id: str


class CopyImpossible(
    Event, name="retry.copy_impossible", level=ERROR, line="no copy of a message can be sent: {error} ({about})"
):
    """A message cannot wait for its next attempt in a delay queue: the broker does not take it."""

    error: str
    about: str
    queue: str
    message_id: str


class CopyWaits(
    Event,
    name="retry.copy_waits",
    level=WARNING,
    line="destination={destination} queue={queue} outcome={outcome}: its delivery waits, unsettled",
    folds=("destination",),
):
    """The broker takes no copies for a delay queue now."""

    destination: str
    queue: str
    outcome: str


class CopiesFlow(
    Event, name="retry.copies_flow", level=WARNING, line="destination={destination}: copies are taken again"
):
    """The broker takes copies for a delay queue again."""

    destination: str


class DuplicateSkipped(
    Event,
    name="consumer.duplicate_skipped",
    level=INFO,
    line="queue={queue} id={message_id}",
    counter="inbox_duplicates_total",
    labels=("consumer=queue",),
):
    """A message had been handled before; its effects did not happen again."""

    queue: str
    message_id: str


class PublishesLost(Event, name="consumer.publishes_lost", level=ERROR, line="queue={queue} ids={ids} error={error}"):
    """What tasks of a handler published after its end could not be stored before the process ends."""

    queue: str
    ids: str
    error: str


class ExecutionFailed(Event, name="consumer.execution_failed", level=ERROR, line="queue={queue} id={message_id}"):
    """A delivery met what nobody expects: a bug of ours; it goes back to the broker."""

    queue: str
    message_id: str


class MessageParked(
    Event,
    name="consumer.parked",
    level=WARNING,
    line="question={question} ({about}): spoolproof review show {id}",
    counter="messages_parked_total",
    labels=("queue",),
):
    """A handler left a message to a person: it is a review item now, and counts as handled."""

    id: str
    question: str
    about: str
    queue: str
    message_id: str


class KeyHeld(Event, name="consumer.key_held", level=ERROR, line="key={key}: held for this one ({about})"):
    """A message was given up, and later ones of its ordering key wait until it is replayed or discarded."""

    key: str
    about: str
    queue: str
    message_id: str


class MessageHeld(Event, name="dead_letter.held", level=WARNING, line="key={key}: waits behind it ({about})"):
    """A message of a held key became a dead letter that runs when the key is released."""

    key: str
    about: str
    queue: str
    message_id: str


class KeyFull(
    Event,
    name="consumer.key_full",
    level=ERROR,
    line="queue={queue} key={key}: {messages} messages are held; its lane waits, and what comes stays in the broker",
):
    """As many messages wait behind a held key as may be."""

    queue: str
    key: str
    messages: int


class KeyReleased(Event, name="consumer.key_released", level=ERROR, line="queue={queue} key={key}: goes on"):
    """All that waited behind a held key has run."""

    queue: str
    key: str


class OrderedGoesBack(
    Event,
    name="consumer.ordered_goes_back",
    level=WARNING,
    line="queue={queue}: what is not settled goes back to the broker, in order, and is taken from there again",
):
    """A delivery of an ordered queue was held for as long as the broker allows, or met a bug of ours."""

    queue: str


class BridgeFailed(Event, name="dead_letters.bridge_failed", level=ERROR, line="queue={queue} error={error}"):
    """A message that the broker gave up cannot be recorded as a dead letter; it goes back to where it lay."""

    queue: str
    error: str


class GateClosed(Event, name="consumer.gate.closed", level=WARNING, line="error={error}"):
    """The store does not write: handlers wait, uncounted."""

    error: str


class GateOpened(Event, name="consumer.gate.opened", level=WARNING, line=""):
    """The store writes again: handlers run."""


class GateProbeFailed(Event, name="consumer.gate.probe_failed", level=DEBUG, line="error={error}"):
    """The store did not take the write that asks whether it does."""

    error: str


class PolicyGateMoved(
    Event,
    name="consumer.gate.policy",
    level=WARNING,
    line="queue={queue} lanes={lanes} prefetch={prefetch} policies={policies}",
):
    """A policy that every message of a queue needs has changed, and with it how much is taken in."""

    queue: str
    lanes: int
    prefetch: int
    policies: str


class PolicyGateInactive(
    Event, name="consumer.gate.inactive", level=WARNING, line="queue={queue} policy={policy}: it rejects nothing"
):
    """A queue is gated by a policy that never holds it back."""

    queue: str
    policy: str


class WaitsForRoom(
    Event,
    name="consumer.outbox_full",
    level=WARNING,
    line="queue={queue}: its handler published {messages} and runs again when there is room ({error})",
):
    """A handler waits for the outbox to have room for what it publishes."""

    queue: str
    messages: int
    error: str


class OutboxHasRoom(
    Event, name="consumer.outbox_has_room", level=WARNING, line="queue={queue}: its handlers run again"
):
    """The outbox has room again."""

    queue: str


class ThreadEndedLate(
    Event, name="consumer.thread_ended_late", level=WARNING, line="handler={handler} end={end}: its attempt was over"
):
    """A plain function ended whose attempt had been cut off before. end: `done`, or its error."""

    handler: str
    end: str


class QueueStranded(
    Event,
    name="queue.stranded",
    level=WARNING,
    line="queue {queue}: no handler of {service} reads it any more; {messages} messages wait in it: {remedy}",
):
    """A handler was renamed or removed and its queue goes on filling."""

    queue: str
    service: str
    messages: int
    remedy: str


class QueueRetired(
    Event,
    name="queue.retired",
    level=WARNING,
    line="queue {queue} of {service} is deleted; {moved} messages were moved, {destroyed} went with it",
):
    """A queue that nobody read was emptied and deleted."""

    queue: str
    service: str
    moved: int
    destroyed: int
