"""What is told of the broker in a file."""

from __future__ import annotations

from spoolproof.telemetry.events import WARNING, Event


class BrokerAway(
    Event,
    name="broker.away",
    level=WARNING,
    line="path={path} error={error}: what waits for it waits, and it is tried again every two seconds",
):
    """The file cannot be used."""

    path: str
    error: str


class BrokerBack(Event, name="broker.back", level=WARNING, line="path={path} seconds={seconds:.1f}"):
    """The file can be used again."""

    path: str
    seconds: float


class ClaimsLost(Event, name="broker.claims_lost", level=WARNING, line="path={path}"):
    """Peers took this process for dead and have taken over what it was working on; it goes on anew."""

    path: str


class ClaimsLeft(Event, name="broker.claims_left", level=WARNING, line="path={path} error={error}"):
    """What this process had claimed could not be given back at its end; peers take it over."""

    path: str
    error: str


class ClaimsRescued(
    Event, name="broker.rescued", level=WARNING, line="owner={owner} messages={messages} is_dead={is_dead}"
):
    """What a dead or silent process had claimed is free again."""

    owner: str
    messages: int
    is_dead: bool
