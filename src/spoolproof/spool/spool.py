"""Which way a publish without a transaction goes: into the store, or into the file of this process.

The store gets 2 s. What it fails to take, or may have taken without saying so, is kept here under the same id: it may
be delivered twice, which receivers notice, and never not at all. After five failures in a row nobody waits for the
store any more; one answered ping ends that, one more failure begins it again.

Order. A message with an ordering key never overtakes one of its key and destination that this process has kept here:
while there is one, later ones are kept here, too. They leave through the store's outbox (`HOME`), behind whatever the
store still holds of their key. So do events that webhooks want. Nothing that is scheduled for later is kept here, or
`cancel` could not tell whether it came in time.

Must never happen here: a message told as kept whose commit did not return.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.destination import EVENTS, Destination
from spoolproof.errors import SpoolFull, StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.message import Outgoing
from spoolproof.outbox.receipt import Place
from spoolproof.ports.spool import HOME, STRAIGHT, SpoolFile, Spools
from spoolproof.spool.events import SpoolFilling, SpoolLeft, SpoolRefused, SpoolStarted
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded


class Spool:
    """Implements `outbox.publish.Beside`. file: this process's, made when it is first needed."""

    patience_seconds = limits.SPOOL_STORE_SECONDS

    def __init__(self, spools: Spools, clock: Clock) -> None:
        self.is_quiet = False
        self.is_store_left = True  #: until it was reached
        self.file: SpoolFile | None = None
        self.left: list[SpoolFile] = []  #: that took no more; whoever drains closes them
        self.stirred = asyncio.Event()
        self.fullness = 0.0
        self.has_webhooks = True  #: until the store has said that nobody waits for events but the broker
        self._spools = spools
        self._folded = Folded(clock)
        self._failures = 0
        self._keys: Counter[tuple[Destination, str]] = Counter()  # bounded by the file's rows
        self._putting = 0
        self._making = asyncio.Lock()
        self._is_closed = False

    async def keep(self, records: Sequence[Outgoing], store: Callable[[], Awaitable[None]]) -> Place:
        """Keep messages here while the store is left alone or behind others of their keys, else there."""
        if any(one.due is not None for one in records):
            await store()
            return Place.STORED
        if self.is_store_left or any(key in self._keys for key in _keys_of(records)):
            return await self._put(records, "the store is not waited for")
        try:
            async with asyncio.timeout(self.patience_seconds):
                await store()
        except (StoreUnavailable, TimeoutError) as error:
            return await self.keep_instead(records, error)
        self._failures = 0
        self._settle()
        return Place.STORED

    async def keep_instead(self, records: Sequence[Outgoing], error: Exception) -> Place:
        """Keep what the store has failed to take. Raises SpoolFull, StoreUnavailable."""
        if any(one.due is not None for one in records):
            raise error if isinstance(error, StoreUnavailable) else StoreUnavailable(self._silence)
        self._failures += 1
        self.is_store_left = self.is_store_left or self._failures >= limits.SPOOL_FAILURES
        self.is_quiet = False
        return await self._put(records, str(error) or self._silence)

    @property
    def _silence(self) -> str:
        return f"the store has not answered in {self.patience_seconds:g} s"

    def store_answers(self) -> None:
        """Trust the store again, a little."""
        self.is_store_left = False
        self._failures = min(self._failures, limits.SPOOL_FAILURES - 1)
        self._settle()

    def moved(self, records: Sequence[Outgoing]) -> None:
        """Note that these of this process's file are in the store."""
        self._keys -= Counter(_keys_of(records))
        self._settle()

    def give_file(self) -> SpoolFile | None:
        """Hand this process's file over if it is empty and nobody is writing to it; the next one makes another."""
        file = self.file
        if file is None or file.rows or self._putting:
            return None
        self.file = None
        return file

    def close(self) -> SpoolFile | None:
        """Keep nothing more; returns the file."""
        self._is_closed = True
        file, self.file = self.file, None
        return file

    def watch(self) -> None:
        """Note how full the spool is, and tell when it fills up."""
        was_filling = self.fullness >= limits.SPOOL_FILLING
        with suppress(OSError):  # the next event that is kept says what is wrong with the disk
            self.fullness = self._spools.fullness
        if self.fullness >= limits.SPOOL_FILLING and not was_filling:
            emit(SpoolFilling(share=self.fullness, rows=sum(file.rows for file in self._spools.open)))

    async def _put(self, records: Sequence[Outgoing], why: str) -> Place:
        keys, lanes = _keys_of(records), [self._lane_of(one) for one in records]
        self._keys.update(keys)  # at once: whoever publishes meanwhile comes behind it
        self._putting += 1
        try:
            file = await self._opened(why)
            try:
                await file.put(records, lanes)
            except StoreUnavailable as error:
                self._leave(file, error)
                file = await self._opened(why)
                await file.put(records, lanes)
        except BaseException as error:
            self._keys -= Counter(keys)
            if isinstance(error, SpoolFull):
                self._folded.emit(SpoolRefused(error=str(error)))
            raise
        finally:
            self._putting -= 1
        failpoint("spool.after_commit")
        self.watch()
        file.wakeup.notify()
        self.stirred.set()
        return Place.SPOOLED

    async def _opened(self, why: str) -> SpoolFile:
        async with self._making:
            if self.file is None:
                if self._is_closed:
                    raise StoreUnavailable(f"the service is stopped ({why})")
                file = self._spools.new()
                try:
                    await file.start()
                except StoreUnavailable as error:
                    raise StoreUnavailable(f"{why}; and the spool cannot be used: {error}") from error
                self.file = file
                emit(SpoolStarted(path=str(file.path), error=why))
            return self.file

    def _lane_of(self, outgoing: Outgoing) -> int:
        is_wanted = outgoing.destination == EVENTS and self.has_webhooks
        return HOME if outgoing.message.key is not None or is_wanted else STRAIGHT

    def _leave(self, file: SpoolFile, error: StoreUnavailable) -> None:
        if self.file is file:
            emit(SpoolLeft(path=str(file.path), error=str(error)))
            self.file = None
            self.left.append(file)

    def _settle(self) -> None:
        self.is_quiet = not (self.is_store_left or self._failures or self._keys)


def _keys_of(records: Sequence[Outgoing]) -> list[tuple[Destination, str]]:
    return [(one.destination, one.message.key) for one in records if one.message.key is not None]
