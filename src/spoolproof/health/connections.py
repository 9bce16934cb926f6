"""The connections of a process, as metrics: which state each is in, how often one was lost and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from spoolproof.health.events import (
    BROKER_BLOCKED,
    BROKER_CONNECTION_STATE,
    CONNECTION_LOST,
    CONNECTION_LOST_AT,
    CONNECTION_STATE,
)
from spoolproof.health.snapshot import Dependency
from spoolproof.ports.broker import BrokerStatus, ConnectionState
from spoolproof.telemetry.metrics import Measure


class Connections:
    """Remembers what was lost. Told of every look at the dependencies, about one a second."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._lost: Counter[str] = Counter()
        self._lost_at: dict[str, float] = {}

    def note(self, dependencies: Iterable[Dependency]) -> None:
        """Take in what a snapshot says of them."""
        for one in dependencies:
            self._lost.setdefault(one.key, 0)
            if one.state != ConnectionState.CONNECTED and self._states.get(one.key) == ConnectionState.CONNECTED:
                self._lost[one.key] += 1
                self._lost_at[one.key] = one.since.timestamp()
            self._states[one.key] = one.state

    def measures(self, broker: BrokerStatus) -> Iterator[Measure]:
        """Yield the state of each dependency and each connection to the broker, and what was lost so far."""
        for key, state in self._states.items():
            yield from ((CONNECTION_STATE, (key, one.value), float(one == state)) for one in ConnectionState)
        yield from ((CONNECTION_LOST, (key,), count) for key, count in self._lost.items())
        yield from ((CONNECTION_LOST_AT, (key,), at) for key, at in self._lost_at.items())
        for connection in broker.connections:
            name, state = connection.name, connection.state
            yield from ((BROKER_CONNECTION_STATE, (name, one.value), float(one is state)) for one in ConnectionState)
        yield BROKER_BLOCKED, (), sum(connection.blocked_seconds for connection in broker.connections)
