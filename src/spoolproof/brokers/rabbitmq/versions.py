"""What differs between the releases of RabbitMQ, as data: the one place that knows.

A release is known by the `server_properties` of a connection. Rows are in the order of the releases; a broker goes by
the newest row that is not newer than itself. Under the first row nothing works (`BrokerTooOld`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spoolproof.brokers.rabbitmq.pika_internals import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """since: the first with these rules. frame_bytes_min: a client that asks for less is refused. delivery_limit: of a
    quorum queue that names none; None: there is none. body_bytes_max: default size limit of a message.
    counts: what adds to the delivery limit. on_consumer_timeout: what the broker does to a delivery kept too long.
    waits_for_cancel_ok: it expects an answer to its own Basic.Cancel."""

    since: tuple[int, int]
    frame_bytes_min: int = 4096
    delivery_limit: int | None = None
    body_bytes_max: int = 128 * 1024 * 1024
    counts: str = "every requeue, closed channel and crash"
    on_consumer_timeout: str = "closes the channel"
    waits_for_cancel_ok: bool = False


RELEASES: Final = (
    Release(since=(3, 10)),
    Release(since=(4, 0), delivery_limit=20, body_bytes_max=16 * 1024 * 1024),
    Release(since=(4, 1), frame_bytes_min=8192, delivery_limit=20, body_bytes_max=16 * 1024 * 1024),
    Release(
        since=(4, 3),
        frame_bytes_min=8192,
        delivery_limit=20,
        body_bytes_max=16 * 1024 * 1024,
        counts="rejects and crashes",
        on_consumer_timeout="cancels the consumer",
        waits_for_cancel_ok=True,
    ),
)
VERSION_MIN: Final = RELEASES[0].since


def version_of(connection: Connection) -> str:
    """Return the broker's version as it says it, `` if it does not."""
    return str((connection.server_properties or {}).get("version", ""))


def is_too_old(version: str) -> bool:
    """Whether nothing works with it; an unreadable version is given the benefit of the doubt."""
    numbers = _numbers(version)
    return numbers is not None and numbers < VERSION_MIN


def release_of(connection: Connection) -> Release:
    """Return the rules the broker at the other end goes by."""
    return release_for(version_of(connection))


def release_for(version: str) -> Release:
    """Return the rules of a version such as `4.1.2`; the oldest ones for one that cannot be read."""
    numbers = _numbers(version) or VERSION_MIN
    return next((one for one in reversed(RELEASES) if one.since <= numbers), RELEASES[0])


def _numbers(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit():
        return int(parts[0]), int(parts[1])
    return None
