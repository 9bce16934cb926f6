"""What is told of SQS and SNS."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event


class SqsAway(
    Event,
    name="sqs.away",
    level=WARNING,
    line='url={url} trouble={trouble} error="{error}" retry_in_seconds={retry_in_seconds:.1f}',
    folds=("trouble",),
):
    """SQS or SNS do not answer, or do not know us."""

    url: str
    trouble: str
    error: str
    retry_in_seconds: float


class SqsBack(Event, name="sqs.back", level=WARNING, line="url={url} seconds={seconds:.1f}"):
    """They answer again."""

    url: str
    seconds: float


class SqsVanished(Event, name="sqs.vanished", level=ERROR, line="{what}: it is declared again", folds=("what",)):
    """A queue or a subscription of ours is gone."""

    what: str


class SqsTrouble(Event, name="sqs.trouble", level=WARNING, line='{what} error="{error}"', folds=("what",)):
    """Something is not as it should be, and goes on: a queue that somebody else has made, one that cannot be read, an
    ack that did not arrive."""

    what: str
    error: str
