"""Refuses work by its criticality: handlers by pausing their intake, HTTP requests with 503 and when to come again.

A message whose handler is shed stays in its queue: its subscription ends, what no lane has started goes back, and no
attempt is counted. A shed handler is one that has said `criticality=`; the others go on at every level, as their
concurrency bounds what they load already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from spoolproof.backoff import RandomSource, spread_seconds, system_random
from spoolproof.degradation.errors import DegradationError, DegradedError
from spoolproof.degradation.events import SHED
from spoolproof.degradation.levels import CRITICALITIES
from spoolproof.ports.health import PROBE_PATHS
from spoolproof.telemetry.metrics import METER

RETRY_SECONDS = 5.0
RETRY_RATIO = 0.2

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Criticality = str | Mapping[str, str] | Callable[[Scope], str]


class Offer:
    """The level of this process as its parts act on it. One for each service, also before its start."""

    def __init__(self) -> None:
        self.level = 0
        self.reason = "nothing"
        self.in_flight = 0.0  #: HTTP requests as a share of what is allowed
        self._watchers: list[Callable[[object], None]] = []

    def refuses(self, criticality: str) -> bool:
        """Whether work of that criticality is refused now."""
        return self.level >= CRITICALITIES[criticality]

    def change(self, level: int, reason: str) -> None:
        """Be at a level from now on."""
        is_other, self.level, self.reason = level != self.level, level, reason
        for watcher in list(self._watchers) if is_other else ():
            watcher(self)

    def watch(self, watcher: Callable[[object], None]) -> Callable[[], None]:
        """Call at each change; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None


class ShedGate:
    """Pauses the intake of a queue while its work is shed. Implements `consumer.policy_gate.GatingPolicy`."""

    name = "degradation"
    admitted_share = 1.0
    open_until_seconds = RETRY_SECONDS * 60  #: for as long nobody holds a delivery and waits
    probes_max = 1
    gates = True

    def __init__(self, offer: Offer, criticality: str) -> None:
        self._offer = offer
        self._criticality = criticality

    @property
    def state(self) -> str:
        """closed, or open while shed."""
        return "open" if self._offer.refuses(self._criticality) else "closed"

    def watch(self, callback: Callable[[object], None]) -> Callable[[], None]:
        """Call back at each change of the level."""
        return self._offer.watch(callback)

    def gating(self) -> None:
        """Nothing to prepare."""


class Shedding:
    """An ASGI application around another: refuses requests by their criticality, and answers 503 where no rung of a
    ladder had an answer. Probes of health and metrics always pass."""

    def __init__(
        self, app: Application, offer: Offer, criticality: Criticality, in_flight_max: int | None,
        random: RandomSource | None = None,
    ) -> None:  # fmt: skip
        named = criticality.values() if isinstance(criticality, Mapping) else (criticality,)
        if wrong := [one for one in named if not callable(one) and one not in CRITICALITIES]:
            raise DegradationError(f"criticality={wrong[0]!r}: {', '.join(CRITICALITIES)}, or a function of the scope")
        if in_flight_max is not None and (not isinstance(in_flight_max, int) or in_flight_max < 1):
            raise DegradationError(f"in_flight_max={in_flight_max!r}: a whole number from 1, or None")
        self._app = app
        self._offer = offer
        self._given = criticality
        self._in_flight_max = in_flight_max
        self._running = 0
        self._random = random or system_random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application do it."""
        if scope["type"] != "http" or _is_probe(scope.get("path", "")):
            await self._app(scope, receive, send)
            return
        if self._offer.level and self._offer.refuses(self._criticality_of(scope)):
            METER.add(SHED, (self._criticality_of(scope),))
            await self._refuse(send, "shed")
            return
        self._count(1)
        has_begun = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except DegradedError:
            if has_begun:
                raise
            await self._refuse(send, "degraded")
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self._running += more
        if self._in_flight_max is not None:
            self._offer.in_flight = self._running / self._in_flight_max

    def _criticality_of(self, scope: Scope) -> str:
        given = self._given
        if isinstance(given, str):
            return given
        if isinstance(given, Mapping):
            path = scope.get("path", "")
            found = [one for one in given if path == one or path.startswith(one.rstrip("/") + "/")]
            return given[max(found, key=len)] if found else "critical"
        found_one = given(scope)
        return found_one if found_one in CRITICALITIES else "critical"

    async def _refuse(self, send: Send, reason: str) -> None:
        seconds = round(spread_seconds(RETRY_SECONDS, ratio=RETRY_RATIO, source=self._random))
        body = b'{"status": "unavailable", "reason": "%s"}' % reason.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(seconds).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _is_probe(path: str) -> bool:
    return any(path == probe or path.startswith(f"{probe}/") for probe in PROBE_PATHS)
