"""This process as the owner of claims: its row, its lock, its trust in both, and how its claims end.

The lease is one row per owner, so renewing a thousand claims is one UPDATE. Its time is the file's steady clock. This
process trusts it no longer than a lease after the last answered renewal was sent, by a clock that counts suspend: an
ack after that may meet a message that is somebody else's by now, so it is refused, and the claim goes back instead.
What is written late all the same is fenced in `queues.settle`.

Must never happen here: an end of a claim forgotten because a commit failed; the message would stay claimed for as long
as this process lives.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spoolproof import limits
from spoolproof.brokers.embedded.queues import Claim, Settlement, Verb, add_owner, renew_owner, rescue, settle
from spoolproof.clock import Clock
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.sqlite import Database
from spoolproof.sqlite.owners import OwnerLock


class Ownership:
    """One owner row, from its insert to its rescue or release."""

    def __init__(
        self,
        database: Database,
        path: Path,
        uuid: str,
        *,
        clock: Clock,
        lease_seconds: float,
        on_settled: Callable[[], None],
        on_trouble: Callable[[BaseException], None],
    ) -> None:
        self.owner = 0
        self.renew_at = 0.0
        self._database = database
        self.uuid = uuid
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._on_settled = on_settled
        self._on_trouble = on_trouble
        self._trusted_until = 0.0
        self._settlements: list[Settlement] = []  # bounded by what was claimed
        self._is_flushing = False
        self._lock = OwnerLock(path, uuid)

    async def begin(self) -> None:
        """Write the owner row. Raises StoreUnavailable."""
        sent_at = self._clock.monotonic()
        self.owner = await self._database.write(lambda db: add_owner(db, self.uuid, self._lease_seconds))
        self._trust_since(sent_at)

    async def renew(self) -> bool:
        """Extend the lease; False when it was rescued, and every claim with it. Raises StoreUnavailable."""
        sent_at = self._clock.monotonic()
        is_ours = await self._database.write(lambda db: renew_owner(db, self.owner, self._lease_seconds))
        if is_ours:
            self._trust_since(sent_at)
        return is_ours

    def _trust_since(self, sent_at: float) -> None:
        self._trusted_until = sent_at + self._lease_seconds
        self.renew_at = sent_at + self._lease_seconds * limits.RENEW_SHARE

    def settle(self, claim: Claim, verb: Verb) -> bool:
        """Note the end of a claim, written with others soon. False, and the claim goes back, past the lease."""
        is_trusted = self._clock.monotonic() < self._trusted_until
        self._settlements.append((claim, verb if is_trusted else Verb.NACK))
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self.flush)
        return is_trusted

    def flush(self) -> None:
        """Write the ends of claims noted so far; what fails is kept for the next flush."""
        self._is_flushing = False
        batch, self._settlements = self._settlements, []
        if not batch:
            return

        def work(db: sqlite3.Connection) -> None:
            settle(db, self.owner, batch)

        def done(result: Any) -> None:
            if isinstance(result, BaseException):
                self._settlements[:0] = batch
                self._on_trouble(result)
                return
            failpoint("embedded.after_ack")
            self._on_settled()

        try:
            self._database.write_soon(work, done)
        except (LimitReached, Unavailable) as error:
            done(error)

    async def release(self) -> None:
        """Give back every claim that has not ended, and the row. Raises StoreUnavailable."""
        batch, self._settlements = self._settlements, []

        def work(db: sqlite3.Connection) -> None:
            settle(db, self.owner, batch)
            rescue(db, self.owner, is_dead=True)

        await self._database.write(work)
        self.abandon(is_row_gone=True)

    def abandon(self, *, is_row_gone: bool) -> None:
        """Let the lock go. With the row still there, others rescue what we hold as soon as they look."""
        self._lock.release(remove=is_row_gone)
