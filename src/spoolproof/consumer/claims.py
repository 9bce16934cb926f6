"""Keeps a handler that calls the world from running twice by accident, and from guessing how a run ended.

Such a handler takes no transaction, so a process that dies in it leaves nothing behind. With `on_unknown` its runs are
claimed: a record in the store names the process before the handler begins, and goes when the end of the run is known.
While that process lives, nobody else runs the message. If it is gone, the outcome is *unknown*: the call may have
arrived. `retry` runs it again under the same idempotency key, `park` asks a person.

The record of a success goes after its inbox row is there, that of a run which asks a person after the question is. A
replay is a person's answer, and has a claim of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from spoolproof.consumer.events import RunUnknown
from spoolproof.consumer.failure import PARK, asks_a_person
from spoolproof.consumer.gate import Gate
from spoolproof.consumer.handler import OnUnknown
from spoolproof.consumer.records import RunRecords
from spoolproof.consumer.work import Refusal, Work
from spoolproof.message import REPLAY_NO
from spoolproof.telemetry.events import emit

_NONE = nullcontext()


class Claims:
    """The claims of one process."""

    def __init__(self, records: RunRecords, gate: Gate) -> None:
        self._records = records
        self._gate = gate

    def held(self, work: Work) -> AbstractAsyncContextManager[None]:
        """Hold the claim inside, from before the run until its outcome is recorded. Raises Refusal for an unknown
        outcome that a person shall judge, GateClosing, StoreUnavailable."""
        on_unknown = work.handler.on_unknown
        return _NONE if on_unknown is None or work.key is None else self._held(work, on_unknown)

    @asynccontextmanager
    async def _held(self, work: Work, on_unknown: OnUnknown) -> AsyncIterator[None]:
        number = work.message.headers.get(REPLAY_NO, 0)
        names = [f"{consumer}/{work.key}/{number}" for consumer in work.consumers]
        has_begun = work.has_run
        if not has_begun and any([await self._records.ended(name) for name in names]):
            emit(RunUnknown(next=f"on_unknown={on_unknown}", **work.told))
            if on_unknown is OnUnknown.PARK:
                raise Refusal(PARK, "the process that ran it ended before the outcome was known: did its call arrive?")
        try:
            if not has_begun:
                for name in names:
                    await self._records.begin(name)
                has_begun = True
            yield
        except BaseException as error:
            if has_begun and asks_a_person(error):
                work.claims = names
            raise
        finally:
            is_known = work.is_recorded or not has_begun or not (work.has_run or self._gate.is_draining)
            if is_known and not work.claims:  # a run that a drain cuts off is as unknown as one that a crash does
                await self._end(names)

    @asynccontextmanager
    async def asking(self, work: Work) -> AsyncIterator[None]:
        """Ask a person inside, durably: until then nobody may run the message again. What a drain keeps from being
        asked stays claimed by the process that ends; what fails in one that lives on comes again, and must not wait
        for it."""
        is_asked = False
        try:
            yield
            is_asked = True
        finally:
            if is_asked or not self._gate.is_draining:
                names, work.claims = work.claims, ()
                await self._end(names)

    async def _end(self, names: Sequence[str]) -> None:
        for name in names:
            await self._records.end(name)
