"""What an author declares: a saga is its steps and the flow that calls them.

A step says what it promises (`Effect`), how it is undone and how one finds out whether it landed. Everything that is
wrong with a definition is found at the start of the service, all of it at once, with file and line.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints

from spoolproof import limits
from spoolproof.policies import Policy
from spoolproof.saga.outcome import Effect

if TYPE_CHECKING:
    from spoolproof.saga.handle import Handle
    from spoolproof.saga.part import SagaFacet

_NAME = re.compile(r"[^/\0]{1,100}")
_EXHAUSTED = ("compensate", "review")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
_NOTHING: Any = object()


@dataclass(slots=True, kw_only=True, eq=False)
class StepDefinition:
    """One step of one saga; what `@order.step(…)` makes of a function, and what `saga.do` takes."""

    name: str
    function: Callable[..., Awaitable[Any]]
    effect: Effect
    policy: Policy | None
    timeout_seconds: float
    retry_seconds: tuple[float, float]
    attempts_max: int
    give_up_seconds: float | None
    on_exhausted: str
    pivot: bool
    tombstone: bool
    why: str
    fallback: Any
    aliases: tuple[str, ...] = ()
    is_retired: bool = False
    undo: Callable[..., Awaitable[Any]] | None = None
    prober: Callable[..., Awaitable[Any]] | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def has_fallback(self) -> bool:
        """Whether something stands in for an answer."""
        return self.fallback is not _NOTHING

    @property
    def output(self) -> Any:
        """The type it returns, as annotated; of a retired one, what its compensation takes."""
        if self.is_retired:
            return _hints(self.undo).get(list(inspect.signature(self.function).parameters)[2], Any)
        return _hints(self.function).get("return", Any)

    @property
    def names(self) -> frozenset[str]:
        """What journals call it."""
        return frozenset((self.name, *self.aliases))

    @property
    def is_undone_in_tx(self) -> bool:
        """Whether its compensation is the store's own work, in one commit with its record."""
        return self.undo is not None and "tx" in inspect.signature(self.undo).parameters

    def compensate(self, function: F) -> F:
        """Register how it is undone: `async def refund(step, order, output)`, with `tx` where that is all it needs.

        output: None where it was never learnt; it works by `step.forward_key` then, and must succeed when there is
        nothing to undo. Retried for a day with one key.
        """
        self.faults += _faults(f"compensation of {self.name!r}", function, 3)
        if self.undo is not None:
            self.faults.append(f"step {self.name!r} has two compensations ({_where(function)})")
        self.undo = function
        return function

    def probe(self, function: F) -> F:
        """Register how one finds out whether it landed: `async def …(step, order)`, which returns Landed(output),
        NotLanded() or StillUnknown()."""
        self.faults += _faults(f"probe of {self.name!r}", function, 2)
        self.prober = function
        return function

    def check(self) -> list[str]:
        """Return what is wrong with it."""
        if self.is_retired:
            return _faults(f"compensation of retired step {self.name!r}", self.function, 3)
        faults = [*self.faults, *_faults(f"step {self.name!r}", self.function, 2)]
        takes_tx = callable(self.function) and "tx" in inspect.signature(self.function).parameters
        is_effect = self.effect is not Effect.READ
        rules = [
            (self.effect is Effect.TX and not takes_tx, "effect='tx' needs a parameter tx: Transaction"),
            (self.effect is not Effect.TX and takes_tx, "it takes tx; write effect='tx'"),
            (is_effect and self.undo is None and not self.why and not self.pivot, _UNDO),
            (not is_effect and self.undo is not None, "a read has nothing to undo"),
            (self.has_fallback and is_effect, "fallback= is for effect='read': an effect cannot be made up"),
            (self.effect in (Effect.TX, Effect.READ) and self.prober is not None, "nothing to probe: it is known"),
            (self.effect is Effect.TX and self.tombstone, "tombstone= is for calls to another system"),
            (self.pivot and self.undo is not None, "a pivot is never undone: leave pivot=True or the compensation out"),
            *self._numbers(),
        ]
        where = _where(self.function)
        return faults + [f"step {self.name!r} ({where}): {text}" for is_broken, text in rules if is_broken]

    def _numbers(self) -> list[tuple[bool, str]]:
        pair, give_up = self.retry_seconds, self.give_up_seconds
        is_pair = isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_above_zero, pair)) and pair[0] <= pair[1]
        is_whole = isinstance(self.attempts_max, int) and not isinstance(self.attempts_max, bool)
        names = [str(name) for name in self.names if not _NAME.fullmatch(str(name))]
        return [
            (not is_pair, f"retry_seconds={pair!r}: first and cap, first not above cap"),
            (not _is_above_zero(self.timeout_seconds), f"timeout={self.timeout_seconds!r}: seconds above 0"),
            (give_up is not None and not _is_above_zero(give_up), f"give_up_seconds={give_up!r}: seconds above 0"),
            (not is_whole or self.attempts_max < 1, f"attempts={self.attempts_max!r}: at least 1"),
            (self.on_exhausted not in _EXHAUSTED, f"on_exhausted={self.on_exhausted!r}: {' or '.join(_EXHAUSTED)}"),
            (self.policy is not None and not isinstance(self.policy, Policy), f"policy={self.policy!r}: pass a Policy"),
            (bool(names), f"{', '.join(map(repr, names))}: a name has 1 to 100 characters, and no '/'"),
        ]


_UNDO = "it has no compensation; add one, or say why there is none: why='…', or pivot=True"


class SagaDefinition:
    """A saga: `order = service.saga("shop.order", version=1)`, its steps `@order.step`, its flow `@order.flow`."""

    def __init__(self, facet: SagaFacet, name: str, version: int, deadline_seconds: float) -> None:
        self._facet = facet
        self.name = name
        self.version = version
        self.deadline_seconds = deadline_seconds
        self.steps: dict[str, StepDefinition] = {}
        self._names: dict[str, StepDefinition] = {}
        self.function: Callable[..., Awaitable[Any]] | None = None
        self._faults: list[str] = []

    def step(
        self,
        *,
        effect: Literal["keyed", "tx", "once", "read"] = "keyed",
        policy: Policy | None = None,
        timeout: float | None = None,
        retry_seconds: tuple[float, float] = limits.SAGA_RETRY_SECONDS,
        attempts: int = limits.SAGA_ATTEMPTS_MAX,
        give_up_seconds: float | None = None,
        on_exhausted: Literal["compensate", "review"] = "compensate",
        pivot: bool = False,
        tombstone: bool = False,
        why: str = "",
        fallback: Any = _NOTHING,
        name: str | None = None,
        aliases: Sequence[str] = (),
    ) -> Callable[[Callable[..., Awaitable[Any]]], StepDefinition]:
        """Register a step: `async def take_payment(step, order, *arguments)`; with effect="tx" also `tx`.

        effect: what it promises, see `Effect`. policy: what protects its calls; a step that finds it unavailable comes
        back when its breaker closes. timeout: seconds of one attempt, default 10, of a transaction 5. retry_seconds:
        the first wait and the longest; they double. attempts: that count; a system that is away costs none.
        give_up_seconds: since the first attempt; default the saga's deadline. on_exhausted: what then. pivot: once it
        may have landed, nothing is undone any more. tombstone: the receiver refuses a call that arrives after its
        compensation. why: why it needs no compensation. fallback: what a read gives when there is no answer. name:
        default the function's; it is in the journal. aliases: what it was called before, as long as sagas live that
        began it under that name; its key stays theirs.
        """

        def register(function: Callable[..., Awaitable[Any]]) -> StepDefinition:
            usual, kind = limits.SAGA_TX_SECONDS if effect == "tx" else limits.SAGA_STEP_SECONDS, Effect.KEYED
            if effect in list(Effect):
                kind = Effect(effect)
            else:
                known = ", ".join(Effect)
                self._faults.append(f"step {function!r} ({_where(function)}): effect={effect!r} is none of {known}")
            step = StepDefinition(
                name=name or str(getattr(function, "__name__", "step")),
                function=function,
                effect=kind,
                policy=policy,
                timeout_seconds=usual if timeout is None else timeout,
                retry_seconds=retry_seconds,
                attempts_max=attempts,
                give_up_seconds=give_up_seconds,
                on_exhausted=on_exhausted,
                pivot=pivot,
                tombstone=tombstone,
                why=why,
                fallback=fallback,
                aliases=tuple(aliases),
            )
            self._add(step)
            return step

        return register

    def retired(self, name: str, *, compensate: F, tombstone: bool = False) -> F:
        """Keep the undo of a step that the flow no longer calls, for the sagas that have done it.

        compensate, tombstone: as the step had them. Those who have done it go on without it.
        """
        step = StepDefinition(
            name=name,
            function=compensate,
            effect=Effect.KEYED,
            policy=None,
            timeout_seconds=limits.SAGA_STEP_SECONDS,
            retry_seconds=limits.SAGA_RETRY_SECONDS,
            attempts_max=limits.SAGA_ATTEMPTS_MAX,
            give_up_seconds=None,
            on_exhausted="review",
            pivot=False,
            tombstone=tombstone,
            why="",
            fallback=_NOTHING,
            is_retired=True,
            undo=compensate,
        )
        self._add(step)
        return compensate

    def find(self, name: str) -> StepDefinition | None:
        """Return the step that a journal calls so."""
        return self._names.get(name)

    def _add(self, step: StepDefinition) -> None:
        for name in sorted(step.names & self._names.keys()):
            self._faults.append(f"two steps are called {name!r} ({_where(step.function)})")
        self._names.update(dict.fromkeys(step.names, step))
        self.steps[step.name] = step

    def flow(self, function: F) -> F:
        """Register what calls the steps: `async def place(saga: Flow, order: PlaceOrder)`. What it returns is the
        result. It runs again from the top after a crash, so it awaits nothing but `saga`."""
        if self.function is not None:
            self._faults.append(f"two flows ({_where(function)})")
        self.function = function
        return function

    @property
    def input(self) -> Any:
        """The type of its input, as the flow annotates it."""
        names = list(inspect.signature(self.function).parameters) if self.function is not None else []
        return _hints(self.function).get(names[1], Any) if len(names) > 1 else Any

    @property
    def result(self) -> Any:
        """The type its flow returns."""
        return _hints(self.function).get("return", Any)

    async def start(self, payload: object, *, id: str | None = None, transaction: object | None = None) -> Handle:
        """Start one; see `service.saga.start`."""
        return await self._facet.start(self.name, payload, id=id, transaction=transaction, version=self.version)

    def check(self) -> list[str]:
        """Return everything that is wrong with it."""
        faults = list(self._faults)
        if self.function is None:
            faults.append("it has no flow; write @….flow above an async function of (saga, input)")
        else:
            faults += _faults("flow", self.function, 2)
        if sum(step.pivot for step in self.steps.values()) > 1:
            where = ", ".join(f"{one.name} ({_where(one.function)})" for one in self.steps.values() if one.pivot)
            faults.append(f"it has two pivots, {where}; there is one point of no return")
        faults += [fault for step in self.steps.values() for fault in step.check()]
        return [f"saga {self.name!r} version {self.version}: {fault}" for fault in faults]


class Definitions:
    """The sagas of a service, by name and version."""

    def __init__(self) -> None:
        self.sagas: dict[tuple[str, int], SagaDefinition] = {}
        self._repeated: list[tuple[SagaDefinition, SagaDefinition]] = []

    def add(self, definition: SagaDefinition) -> None:
        """Register one; a second of that name and version is found at the start."""
        place = definition.name, definition.version
        if place in self.sagas:
            self._repeated.append((self.sagas[place], definition))
        self.sagas[place] = definition

    def newest(self, name: str) -> SagaDefinition | None:
        """Return the newest version of that name."""
        versions = [version for of, version in self.sagas if of == name]
        return self.sagas[name, max(versions)] if versions else None

    def check(self) -> Sequence[str]:
        """Return what is wrong with any of them."""
        twice = [
            f"two sagas are called {one.name!r} version {one.version}: {_where(one.function)}, {_where(other.function)}"
            for one, other in self._repeated
        ]
        return [*twice, *(fault for one in self.sagas.values() for fault in one.check())]


def _is_above_zero(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


@lru_cache(maxsize=4096)
def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception:  # a name that is not there at run time: `check` tells
        return {}


def _faults(what: str, function: Any, least: int) -> list[str]:
    where = _where(function)
    if not inspect.iscoroutinefunction(function):
        return [f"{what} ({where}): write `async def`"]
    faults = []
    try:
        get_type_hints(function)
    except Exception as error:
        faults.append(f"{what} ({where}): its annotations cannot be read: {error}; define them in the module")
    positional = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.KEYWORD_ONLY]
    if len(positional) < least and not any(one.kind is one.VAR_POSITIONAL for one in positional):
        faults.append(f"{what} ({where}): it takes {len(positional)} parameters, at least {least} are given")
    return faults


def _where(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)
