"""What is told of RabbitMQ: its connections and channels, what exists in it, and what it does not take."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event


class ConnectionAttempted(
    Event,
    name="broker.connection.attempt",
    level=WARNING,
    line="connection={connection} url={url} attempt={attempt} round={round} outcome={outcome} "
    'error="{error}" retry_in_seconds={retry_in_seconds:.1f}',
    counter="broker_connection_attempts_total",
    labels=("outcome",),
    folds=("url", "outcome"),
):
    """A connection was opened, or could not be."""

    connection: str
    url: str
    attempt: int
    round: int
    outcome: str
    error: str = ""
    retry_in_seconds: float = 0.0

    def text(self) -> str:
        """Return name and line; one that succeeded has no error."""
        return super().text() if self.error else super().text().partition(" error=")[0]


class ConnectionLost(
    Event,
    name="broker.connection.lost",
    level=WARNING,
    line='connection={connection} url={url} error="{error}" retry_in_seconds={retry_in_seconds:.1f}',
):
    """A connection that worked is gone."""

    connection: str
    url: str
    error: str
    retry_in_seconds: float


class ConnectionBlocked(Event, name="broker.connection.blocked", level=WARNING, line="connection={connection}"):
    """The broker reads no publishes: it is short of memory or disk."""

    connection: str


class ConnectionUnblocked(Event, name="broker.connection.unblocked", level=WARNING, line="connection={connection}"):
    """The broker reads publishes again."""

    connection: str


class PublishChannelClosed(
    Event,
    name="broker.channel.closed",
    level=WARNING,
    line='purpose=publish unanswered={unanswered} error="{error}"',
    folds=("code",),
):
    """The broker closed the channel of the publishes over one of them."""

    unanswered: int
    code: int
    error: str


class ChannelReplaced(Event, name="broker.channel.replaced", level=WARNING, line="unanswered={unanswered}"):
    """So many confirms are overdue that a new channel is opened."""

    unanswered: int


class SinkFailed(Event, name="broker.sink_failed", level=ERROR, line="results={results}"):
    """Whoever published raised over the answers: a bug of ours."""

    results: int


class CallbackFailed(Event, name="broker.callback_failed", level=ERROR, line="callback={callback}"):
    """A callback given to pika raised: a bug of ours."""

    callback: str


class ExchangeMissing(
    Event, name="topology.exchange_missing", level=ERROR, line="exchange={exchange}: it is declared again"
):
    """An exchange of this service had vanished, with what was bound to it."""

    exchange: str


class QueueMissing(Event, name="topology.queue_missing", level=ERROR, line="queue={queue}: it is declared again"):
    """A queue of this service had vanished, with what was in it."""

    queue: str


class QueueUnanswered(
    Event, name="topology.queue_unanswered", level=ERROR, line="queue={queue}: the broker does not answer about it"
):
    """The broker leaves a question about a queue open; the others go on without it."""

    queue: str


class TopologyMissing(
    Event, name="topology.missing", level=ERROR, line='what="{what}": RABBITMQ_TOPOLOGY=verify declares nothing'
):
    """Something that this service needs is not there, and its settings let it declare nothing."""

    what: str


class TopologyDrifted(Event, name="topology.drifted", level=WARNING, line='what="{what}" error="{error}"'):
    """Something exists otherwise than this release would declare it; it is used as it is."""

    what: str
    error: str


class TopologyRefused(Event, name="topology.refused", level=WARNING, line='what="{what}" error="{error}"'):
    """Something cannot be declared."""

    what: str
    error: str


class TopologyAsPlanned(Event, name="topology.as_planned", level=WARNING, line='what="{what}"'):
    """What had drifted or was refused is as it should be."""

    what: str


class SubscriptionLost(
    Event,
    name="consumer.lost",
    level=ERROR,
    line='queue={queue} error="{error}": nothing is taken from it',
    folds=("queue",),
):
    """A queue is not consumed although there is a connection; that is tried again."""

    queue: str
    error: str


class SubscriptionFound(
    Event, name="consumer.found", level=WARNING, line="queue={queue}: messages are taken from it again"
):
    """A queue is consumed again."""

    queue: str


class CancelUnanswered(Event, name="consumer.cancel_unanswered", level=WARNING, line='queue={queue} error="{error}"'):
    """The end of a subscription was not confirmed."""

    queue: str
    error: str


class DeliveryCallbackFailed(Event, name="consumer.callback_failed", level=ERROR, line="queue={queue} id={id}"):
    """Whoever a delivery was given to raised; it goes back to the queue."""

    queue: str
    id: str


class OddProperties(Event, name="consumer.odd_properties", level=WARNING, line="queue={queue} id={id} lost={lost}"):
    """A message of somebody else's has properties that the protocol does not allow; it is read without them."""

    queue: str
    id: str
    lost: str
