"""What the store is counted for: rows that wait, who ships them. Every 10 s, from statements of bounded work."""

from __future__ import annotations

import asyncio
import logging

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.clock import Clock
from spoolproof.health.check import Condition
from spoolproof.health.snapshot import Ownership
from spoolproof.ports.outbox import Backlog
from spoolproof.ports.store import Store

logger = logging.getLogger("spoolproof.health")


class Sampler:
    """Counts, and how old the counts are."""

    def __init__(self, store: Store, clock: Clock, random: RandomSource) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._unowned = Condition(clock, holds=False)
        self._shards: tuple[int, int] | None = None
        self._backlog: Backlog | None = None
        self._sampled_at = clock.monotonic()
        self._due_at = self._sampled_at

    async def sample_if_due(self) -> bool:
        """Count what is due; False if that failed. The old counts then stand until they are too old to show."""
        if self._clock.monotonic() < self._due_at:
            return True
        self._due_in(limits.HEALTH_SAMPLE_SECONDS)  # also when it fails: counting must not burden a store in trouble
        try:
            async with asyncio.timeout(limits.HEALTH_ANSWER_SECONDS_MAX):
                await self._sample()
        except Exception as error:  # too slow or away: the ping says which
            logger.debug("health.sample_failed error=%s", type(error).__name__)
            return False
        self._sampled_at = self._clock.monotonic()
        if self._unowned.holds and self._backlog is not None and self._backlog.rows > 0:
            self._due_in(limits.HEALTH_SAMPLE_SOON_SECONDS)
        return True

    @property
    def backlog(self) -> Backlog | None:
        """What waits in the outbox, None when that is not known."""
        return self._backlog if self._is_fresh else None

    @property
    def ownership(self) -> Ownership | None:
        """Who ships it, None when that is not known."""
        if self._shards is None or not self._is_fresh:
            return None
        shards, unowned = self._shards
        return Ownership(shards=shards, unowned=unowned, seconds=self._unowned.seconds)

    @property
    def _is_fresh(self) -> bool:
        return self._clock.monotonic() - self._sampled_at <= limits.HEALTH_STALE_SECONDS

    def _due_in(self, seconds: float) -> None:
        self._due_at = self._clock.monotonic() + spread_seconds(seconds, ratio=0.1, source=self._random)

    async def _sample(self) -> None:
        own = self._store.services.own
        backlog = await self._store.outbox.backlog(own.shards)
        leases = await self._store.leases.status(own.lease_kind)
        self._backlog = backlog
        self._shards = (len(leases), sum(1 for lease in leases if lease.owner is None or lease.is_expired))
        self._unowned.note(self._shards[1] > 0)
