"""What the store is counted for: rows that wait, who ships them, dead letters. Bounded work, every 10 s.

A lease outlives its process. A holder that has not renewed for half a lease, which it does three times in each, is gone
or frozen: its shards have nobody, although nobody else may take them yet. Seen by what changes from one count to the
next, so no clock of another machine matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.clock import Clock
from spoolproof.health.check import Condition
from spoolproof.health.events import (
    DEAD_LETTERS,
    DEAD_LETTERS_OLDEST,
    OUTBOX_OLDEST,
    OUTBOX_ROWS,
    OUTBOX_UNOWNED,
    SampleFailed,
)
from spoolproof.health.snapshot import OpenDeadLetters, Ownership
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetters, DeadLetterState
from spoolproof.ports.leases import Leases, LeaseStatus
from spoolproof.ports.outbox import Backlog, Outbox
from spoolproof.ports.services import Services
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import Measure


class Sampler:
    """Counts, and how old the counts are."""

    def __init__(
        self,
        services: Services,
        outbox: Outbox,
        leases: Leases,
        dead_letters: DeadLetters,
        *,
        lease_seconds: float,
        clock: Clock,
        random: RandomSource,
    ) -> None:
        self._renewed_within_seconds = lease_seconds / 2
        self._renewals: dict[str, tuple[datetime | None, float]] = {}  # by lease: its end, and when that was first seen
        self._services = services
        self._outbox = outbox
        self._leases = leases
        self._letters = dead_letters
        self._clock = clock
        self._random = random
        self._left = Condition(clock, holds=False)
        self._ownership: Ownership | None = None
        self._backlog: Backlog | None = None
        self._dead_letters: OpenDeadLetters | None = None
        self._dead_letter_counts: Mapping[DeadLetterState, int] = {}
        self._sampled_at = clock.monotonic()
        self._due_at = self._sampled_at + limits.HEALTH_SAMPLE_SOON_SECONDS  # a start has its leases by then

    async def sample_if_due(self) -> bool:
        """Count what is due; False if that failed. The old counts then stand until they are too old to show."""
        if self._clock.monotonic() < self._due_at:
            return True
        self._due_in(limits.HEALTH_SAMPLE_SECONDS)  # also when it fails: counting must not burden a store in trouble
        try:
            async with asyncio.timeout(limits.HEALTH_ANSWER_SECONDS_MAX):
                await self._sample()
        except Exception as error:  # too slow or away: the ping says which
            emit(SampleFailed(error=type(error).__name__))
            return False
        self._sampled_at = self._clock.monotonic()
        if self._is_waiting or self._left.holds:
            self._due_in(limits.HEALTH_SAMPLE_SOON_SECONDS)
        return True

    @property
    def backlog(self) -> Backlog | None:
        """What waits in the outbox, None when that is not known."""
        return self._backlog if self._is_fresh else None

    @property
    def ownership(self) -> Ownership | None:
        """Who ships it, None when that is not known."""
        return self._ownership if self._is_fresh else None

    @property
    def dead_letters(self) -> OpenDeadLetters | None:
        """Those that are open, None when there are none or that is not known."""
        return self._dead_letters if self._is_fresh else None

    def measures(self, *, leads_service: bool, leads_database: bool) -> Iterator[Measure]:
        """Yield the counts, unless they are too old to show. Of each one process tells them, so that they add up; of
        the outbox all do while a shard has nobody, and so perhaps the service no leader."""
        if self.backlog is None or self.ownership is None:
            return
        if leads_service or self.ownership.unowned:
            yield OUTBOX_ROWS, (), self.backlog.rows
            if self.backlog.oldest_at is not None:
                yield OUTBOX_OLDEST, (), self.backlog.oldest_at.timestamp()
            yield OUTBOX_UNOWNED, (), self.ownership.unowned
        if leads_database:
            yield from ((DEAD_LETTERS, (state.value,), count) for state, count in self._dead_letter_counts.items())
            if self.dead_letters is not None:
                yield DEAD_LETTERS_OLDEST, (), self.dead_letters.oldest_at.timestamp()

    @property
    def _is_fresh(self) -> bool:
        return self._clock.monotonic() - self._sampled_at <= limits.HEALTH_STALE_SECONDS

    @property
    def _is_waiting(self) -> bool:
        oldest_at = None if self._backlog is None else self._backlog.oldest_at
        if oldest_at is None:
            return False
        return (self._clock.now() - oldest_at).total_seconds() > limits.HEALTH_SAMPLE_SOON_SECONDS

    def _due_in(self, seconds: float) -> None:
        self._due_at = self._clock.monotonic() + spread_seconds(seconds, ratio=0.1, source=self._random)

    async def _sample(self) -> None:
        own = self._services.own
        backlog = await self._outbox.backlog(own.shards)
        leases = await self._leases.status(own.lease_kind)
        unowned = self._unowned(leases)
        dead_letters = await self._open_dead_letters()
        self._backlog, self._dead_letters = backlog, dead_letters
        self._left.note(unowned > 0)
        self._ownership = Ownership(shards=len(leases), unowned=unowned, seconds=self._left.seconds)

    async def _open_dead_letters(self) -> OpenDeadLetters | None:
        self._dead_letter_counts = await self._letters.counts()
        count = self._dead_letter_counts[DeadLetterState.OPEN]
        if not count:
            return None
        oldest = await self._letters.search(DeadLetterFilter(state=DeadLetterState.OPEN, limit=1))
        return OpenDeadLetters(count=count, oldest_at=oldest[0].first_failed_at) if oldest else None

    def _unowned(self, leases: Sequence[LeaseStatus]) -> int:
        now = self._clock.monotonic()
        before, self._renewals = self._renewals, {}
        unowned = 0
        for lease in leases:
            ends_at, seen_at = before.get(lease.name, (None, now))
            if ends_at != lease.expires_at:
                seen_at = now
            self._renewals[lease.name] = (lease.expires_at, seen_at)
            is_left = now - seen_at >= self._renewed_within_seconds
            unowned += lease.owner is None or lease.is_expired or is_left
        return unowned
