"""What has changed since the last look, by topic, for every page that is open: signals, never data.

However many pages are open, the store is looked at once: at most every two seconds, and never more than a tenth of the
time. Each look leaves the counts of the overview behind, from which its lines are drawn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from typing import Any

from spoolproof.clock import Clock
from spoolproof.errors import LimitReached, NotStarted, StoreUnavailable
from spoolproof.health.view import ProcessView
from spoolproof.ports.bulk import Bulks
from spoolproof.ports.dead_letters import DeadLetterState
from spoolproof.ports.reviews import Reviews
from spoolproof.ports.sagas import Sagas
from spoolproof.web.source import Source

STREAMS_MAX = 100
STREAM_SECONDS = 25.0
"""How long one stream lasts: a server that ends waits for its answers, and the browser comes again by itself."""
LOOK_SECONDS = 2.0
HISTORY = 180  #: looks that are drawn: six minutes or more
DELIVERED, PUBLISHED = "consumer_deliveries_total", "relay_published_total"


class Pulse:
    """One for each dashboard."""

    def __init__(self, source: Callable[[], Source], clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._turn = asyncio.Lock()
        self._digests: dict[str, str] = {}
        self._due_at = 0.0
        self._rates: dict[str, _Rate] = {}
        self.history: deque[dict[str, float]] = deque(maxlen=HISTORY)
        self.streams = 0

    async def signals(self) -> AsyncIterator[str]:
        """Yield server-sent events for one page until it is time to come again."""
        self.streams += 1
        try:
            ends = self._clock.monotonic() + STREAM_SECONDS
            yield "retry: 2000\nevent: hello\ndata: -\n\n"
            known = await self.look()
            while self._clock.monotonic() < ends and not self._is_ending():
                await self._clock.sleep(0.5)
                found = await self.look()
                changed = sorted(topic for topic, digest in found.items() if known.get(topic) != digest)
                if changed:
                    known = dict(found)
                    yield f"event: changed\ndata: {' '.join(changed)}\n\n"
            yield "event: bye\ndata: -\n\n"
        finally:
            self.streams -= 1

    def _is_ending(self) -> bool:
        try:
            return self._source().is_ending()
        except NotStarted:
            return True

    async def look(self) -> dict[str, str]:
        """Return a digest of each topic, not older than a look."""
        async with self._turn:
            began = self._clock.monotonic()
            if began < self._due_at:
                return self._digests
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    found = await self._read(self._source())
                self._digests = {**{topic: _digest(value) for topic, value in found.items()}, "store": "here"}
            except (StoreUnavailable, LimitReached, TimeoutError, NotStarted):
                self._digests = {**self._digests, "store": "away"}
            took = self._clock.monotonic() - began
            self._due_at = began + max(LOOK_SECONDS, 10 * took)
            return self._digests

    async def _read(self, source: Source) -> dict[str, Any]:
        store, now = source.store, source.clock.now()
        services = list(await store.services.all())
        reviews = [await store.port(Reviews).counts(name, now) for name in services]
        letters = await store.dead_letters.counts()
        backlog = await store.outbox.backlog()
        views = await source.views()
        self._note(views, letters[DeadLetterState.OPEN], backlog.rows)
        return {
            "letters": letters,
            "bulks": await store.port(Bulks).all(5, live=True),
            "reviews": reviews,
            "outbox": (backlog.rows, backlog.deferred),
            "sagas": [await store.port(Sagas).counts(name) for name in services],
            "processes": [(id, view.system, view.issues) for id, view in views.items()],
            "numbers": [(id, view.at) for id, view in views.items()],
        }

    def _note(self, views: Mapping[str, ProcessView], letters: float, outbox: float) -> None:
        """Leave a point of each line: rates by what each process has counted between its last two views."""
        for id, view in views.items():
            totals = (view.sum(DELIVERED), view.sum(PUBLISHED))
            before = self._rates.get(id)
            if before is None:
                self._rates[id] = _Rate(view.at, totals, (0.0, 0.0))
            elif (seconds := (view.at - before.at).total_seconds()) > 0.5:
                handled, published = (
                    max(0.0, now - then) / seconds for now, then in zip(totals, before.totals, strict=True)
                )
                self._rates[id] = _Rate(view.at, totals, (handled, published))
        self._rates = {id: rate for id, rate in self._rates.items() if id in views}
        handled, published = (sum(rate.rates[n] for rate in self._rates.values()) for n in (0, 1))
        self.history.append({"handled": handled, "published": published, "letters": letters, "outbox": outbox})


@dataclass(frozen=True, slots=True)
class _Rate:
    """What a process had handled and published by then, and how much of it in a second lately."""

    at: datetime
    totals: tuple[float, float]
    rates: tuple[float, float]


def _digest(value: object) -> str:
    return sha1(repr(value).encode(), usedforsecurity=False).hexdigest()
