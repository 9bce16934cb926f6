"""A saga that was started, for whoever waits for its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spoolproof.clock import Clock
from spoolproof.errors import NotFound
from spoolproof.ports.sagas import Journal, Phase, Sagas, SagaState, StepState
from spoolproof.saga.definition import SagaDefinition, StepDefinition
from spoolproof.saga.errors import SagaInReview, SagaRefused
from spoolproof.saga.question import read
from spoolproof.saga.run import RESULT
from spoolproof.saga.values import decode
from spoolproof.saga.watch import Watch

_NOT_YET = object()


class Handle:
    """One saga. id: of the saga. key: what it was started under. is_new: False if it was started before."""

    def __init__(
        self, sagas: Sagas, definition: SagaDefinition, id: str, key: str, *, is_new: bool, clock: Clock, watch: Watch
    ) -> None:
        self.id = id
        self.key = key
        self.is_new = is_new
        self._sagas = sagas
        self._definition = definition
        self._clock = clock
        self._watch = watch

    async def look(self) -> Journal:
        """Return all that is durable of it. Raises NotFound before the transaction it was started in has committed."""
        found = await self._sagas.journal(self.id)
        if found is None:
            raise NotFound(f"no saga {self.id!r}: the transaction it was started in has not committed")
        return found

    async def result(self, timeout: float = 60.0) -> Any:
        """Return what the flow returned; waits so many seconds for it.

        Raises SagaRefused when it was undone, SagaInReview when a person is asked, TimeoutError.
        """

        def result_in(found: Journal) -> Any:
            saga = found.saga
            if saga.state is SagaState.COMPLETED:
                row = next((row for row in found.steps if row.place == RESULT), None)
                return None if row is None else decode(row.output, self._definition.result)
            if saga.state in (SagaState.COMPENSATED, SagaState.ABANDONED):
                raise SagaRefused(self.id, saga.state.value, saga.cause or "")
            return _NOT_YET

        return await self._first(result_in, timeout, wants_steps=False)

    async def reached(self, step: StepDefinition, timeout: float = 60.0) -> Any:
        """Return what a step returned, as soon as that is durable; waits so many seconds for it. For who has to answer
        a caller in the middle of a saga, which goes on.

        Of several steps of that name the first. Raises SagaRefused when the saga ended, or turned back, before it,
        SagaInReview when a person is asked first, TimeoutError.
        """

        def output_in(found: Journal) -> Any:
            saga = found.saga
            done = [row for row in found.steps if row.name in step.names and row.phase is Phase.DO]
            if done and done[0].state in (StepState.SUCCEEDED, StepState.SKIPPED):
                return decode(done[0].output, step.output)
            if saga.cause is not None or saga.state is SagaState.COMPLETED:
                raise SagaRefused(self.id, saga.state.value, saga.cause or f"over without {step.name}")
            return _NOT_YET

        return await self._first(output_in, timeout, wants_steps=True)

    async def _first(self, what: Callable[[Journal], Any], timeout: float, *, wants_steps: bool) -> Any:
        """Return what is found first in the journal, looking whenever there is news."""
        until = self._clock.monotonic() + timeout
        with self._watch.waiting(self.id, wants_steps=wants_steps) as waiter:
            while True:
                waiter.begin()
                found = await self.look()
                value = what(found)
                if value is not _NOT_YET:
                    return value
                saga = found.saga
                if saga.state is SagaState.IN_REVIEW:
                    raise SagaInReview(self.id, "" if saga.question is None else read(saga.question).text)
                left = until - self._clock.monotonic()
                if left <= 0:
                    raise TimeoutError(f"saga {self.id} is {saga.state.value} after {timeout:g} s; it goes on")
                await waiter.wait(left)
