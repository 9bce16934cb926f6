"""Stands between a saga and its steps, and between the steps and the fakes they call.

While it is set up, every step, undo and probe of the definition, and every coroutine method of the fakes, goes through
the trial of the moment. Where a step calls fakes, its fault strikes the last such call it makes, which is where a step
has its effect; else the step as a whole. So code around the call, such as an `except` that hides a failure, is tried
as well.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, Protocol

from spoolproof.ports.sagas import Phase
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.step import Landed, NotLanded
from spoolproof.testing.torture.faults import Place

Make = Callable[[], Awaitable[Any]]


class Trying(Protocol):
    """What a trial does about calls."""

    async def call(self, place: Place, make: Make, visit: Visit) -> Any:
        """Make a call of a step or an undo."""

    async def strike(self, make: Make) -> Any:
        """Make the call that the fault is meant for."""

    def note(self, what: str, place: Place) -> None:
        """Remember that something happened."""


class Visit:
    """One call of a step and the calls it makes. strike_at: which of those the fault strikes; 0: none."""

    def __init__(self, trial: Trying) -> None:
        self.trial = trial
        self.calls = self.strike_at = 0


_visit: ContextVar[Visit | None] = ContextVar("_visit", default=None)


class Stage:
    """trial: of the moment; None: calls pass."""

    def __init__(self, definition: SagaDefinition, fakes: Sequence[object]) -> None:
        self._definition = definition
        self._fakes = fakes
        self.trial: Trying | None = None

    @contextmanager
    def set_up(self) -> Iterator[None]:
        """Stand in between for the block, in which nothing is told: hundreds of faults are what was asked for."""
        with ExitStack() as block:
            logger = logging.getLogger("spoolproof")
            block.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
            for step in self._definition.steps.values():
                block.enter_context(_put(step, "function", self._around(step.function, Phase.DO)))
                if step.undo is not None:
                    block.enter_context(_put(step, "undo", self._around(step.undo, Phase.COMPENSATE)))
                if step.prober is not None:
                    block.enter_context(_put(step, "prober", self._around_probe(step.prober)))
            for fake in self._fakes:
                for name in _methods(fake):
                    block.enter_context(_put(fake, name, _around_method(getattr(fake, name))))
            yield

    def _around(self, function: Any, phase: Phase) -> Any:
        @wraps(function)
        async def call(*given: Any, **more: Any) -> Any:
            make = partial(function, *given, **more)
            if self.trial is None:
                return await make()
            visit = Visit(self.trial)
            token = _visit.set(visit)
            try:
                return await self.trial.call((phase, given[0].name, given[0].item), make, visit)
            finally:
                _visit.reset(token)

        return call

    def _around_probe(self, function: Any) -> Any:
        @wraps(function)
        async def call(*given: Any, **more: Any) -> Any:
            said = await function(*given, **more)
            if self.trial is not None and isinstance(said, Landed | NotLanded):
                self.trial.note("verdict", (Phase.DO, given[0].name, given[0].item))
            return said

        return call


def _around_method(method: Any) -> Any:
    @wraps(method)
    async def call(*given: Any, **more: Any) -> Any:
        visit, make = _visit.get(), partial(_made, method, *given, **more)
        if visit is None:
            return await make()
        visit.calls += 1
        return await (visit.trial.strike(make) if visit.calls == visit.strike_at else make())

    return call


async def _made(method: Any, *given: Any, **more: Any) -> Any:
    token = _visit.set(None)  # what a fake calls of itself is no call of the step
    try:
        return await method(*given, **more)
    finally:
        _visit.reset(token)


def _methods(fake: object) -> list[str]:
    names = [name for name in dir(fake) if not name.startswith("_")]
    found = [name for name in names if inspect.iscoroutinefunction(getattr(fake, name))]
    if not found:
        raise TypeError(f"torture(fakes=…): {fake!r} has no coroutine function; a fault could strike nothing there")
    return found


@contextmanager
def _put(holder: Any, name: str, value: Any) -> Iterator[None]:
    own = vars(holder).get(name) if hasattr(holder, "__dict__") else getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(holder, name)
        else:
            setattr(holder, name, own)
