"""Endpoints: where webhooks go, and which events each gets.

A row of the outbox whose destination is the service's exchange is an event. Whoever writes one writes, in the same
statement, a row for every endpoint that wants its type and is not disabled: the stores do it themselves (a trigger), so
that it holds for every way to publish, the user's own connections among them. Such a row has the destination
`webhook:<name>`, no ordering key, and stands in the webhook shards of its service (`ports.services`). What a replay of
a dead letter writes is no new event.

Endpoints belong to the database. Never here: an HTTP request, or what a secret that is named elsewhere says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

ALL_TYPES = "*"
"""Among the types of an endpoint: it wants every event."""


class EndpointState(StrEnum):
    """active: gets its events; paused: they wait; disabled: it gets none, and those that wait become dead letters."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where webhooks go. secrets: `whsec_…`, `env:NAME` or `file:PATH`, newest first; each signs. types: wire names,
    or `*`. failing_since: the first failure after its last success. note: why it is as it is."""

    name: str
    url: str
    secrets: tuple[str, ...]
    types: tuple[str, ...]
    state: EndpointState = EndpointState.ACTIVE
    failing_since: datetime | None = None
    note: str = ""

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.state}>"  # its secrets, and perhaps its URL, are nobody's business


class Webhooks(Protocol):
    """The table of endpoints. Everything is committed on return; all raise StoreUnavailable."""

    async def add(self, endpoint: Endpoint) -> bool:
        """Add an active endpoint. False, and nothing written, if the name is taken."""

    async def all(self) -> Sequence[Endpoint]:
        """Return every endpoint, sorted by name."""

    async def change(self, name: str, state: EndpointState, note: str) -> bool:
        """Put it into a state; what is active begins without a failure. False if there is none of that name."""

    async def sign_with(self, name: str, secrets: Sequence[str]) -> bool:
        """Replace its secrets. False if there is none of that name."""

    async def remove(self, name: str) -> bool:
        """Forget it; what waits for it becomes dead letters. False if there is none of that name."""

    async def note(self, name: str, failure: str | None, pause_after_seconds: float) -> EndpointState | None:
        """Note how an attempt ended: None for a success. One that has failed for so long by the database's clock is
        paused by it. Returns the state it is in then, None for an endpoint that is gone."""

    async def waiting(self) -> Mapping[str, int]:
        """Return how many rows wait for each endpoint, of all services, counted up to 100 000 in all."""
