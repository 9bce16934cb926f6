"""What to answer when the dependency gives no answer.

A chain: values, or functions of the error, tried in order; the first that returns wins. `Result.source` says where an
answer came from. An answer that was given (a 404, a refusal) is never replaced, nor is a bug, nor a cancellation. When
all fail, the original error is raised with theirs as notes."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from spoolproof.errors import PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call
from spoolproof.policies.classifier import text_of
from spoolproof.policies.discard import OnDiscard, discard
from spoolproof.policies.node import Node
from spoolproof.policies.part import Part
from spoolproof.policies.report import add_note
from spoolproof.policies.timeout import await_it, close_it, is_awaitable, within
from spoolproof.policies.verdict import Kind

ENTRIES_MAX = 1024
_REPLACED = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT, Kind.RATE_LIMITED, Kind.LOCAL, Kind.DEADLINE})


@dataclass(frozen=True, slots=True)
class LastGood:
    """The last answer for the same key, if it is younger than `age_seconds_max`."""

    key: Callable[..., Any] | None
    age_seconds_max: float


@dataclass(frozen=True, slots=True)
class Constant:
    """A value, whatever it is, callable or not."""

    value: Any


class Fallback(Part):
    """Answers from `rungs` when the call fails: values, or functions (sync or async) of the error.

    Each rung has `rung_seconds` (default 1, 0.001 to 60) if it is async. A callable that is itself the value is given
    as `Fallback.constant(value)`. on_discard: called with a judged result once a rung has answered in its place; unless
    given, what has `aclose` or `close` is closed."""

    kind: ClassVar[str] = "fallback"
    settings: ClassVar[tuple[str, ...]] = ("rung_seconds",)

    def __init__(self, *rungs: Any, rung_seconds: float | None = None, on_discard: OnDiscard | None = None) -> None:
        self.rungs = rungs
        self.on_discard = on_discard
        faults = [] if rungs else ["rungs=(): give at least one value or function of the error"]
        for rung in rungs:
            if isinstance(rung, LastGood):
                age: Any = rung.age_seconds_max
                if isinstance(age, bool) or not isinstance(age, int | float) or not 0 < age < float("inf"):
                    faults.append(f"age_seconds_max={age!r}: a finite number of seconds above 0")
        super().__init__({"rung_seconds": rung_seconds}, faults)

    @classmethod
    def last_good(cls, *, age_seconds_max: float, key: Callable[..., Any] | None = None) -> Fallback:
        """Answer with the last good answer to the same question, at most `age_seconds_max` old (`source` is stale).

        key: takes the call's arguments and returns something hashable that names the question; only a function without
        arguments needs none. Keeps the 1,024 answers used last.
        """
        return cls(LastGood(key, age_seconds_max))

    @classmethod
    def constant(cls, value: Any) -> Fallback:
        """Answer with `value`, even if it is callable."""
        return cls(Constant(value))

    def then(self, *rungs: Any) -> Fallback:
        """Return a chain that goes on with `rungs` where this one has no answer."""
        seconds: Any = self.given.get("rung_seconds")
        return Fallback(*self.rungs, *rungs, rung_seconds=seconds, on_discard=self.on_discard)


class Answers:
    """The last good answers, the one not used for longest going first. Thread-safe."""

    __slots__ = ("_entries", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: OrderedDict[tuple[Any, ...], tuple[float, Any]] = OrderedDict()

    def keep(self, question: tuple[Any, ...], answer: Any, now: float) -> None:
        """Remember an answer."""
        with self._lock:
            self._entries[question] = (now, answer)
            self._entries.move_to_end(question)
            if len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)

    def find(self, question: tuple[Any, ...], age_seconds_max: float, now: float) -> tuple[Any] | None:
        """Return the answer in a tuple, or None when there is none young enough."""
        with self._lock:
            entry = self._entries.get(question)
            if entry is None or now - entry[0] > age_seconds_max:
                return None
            self._entries.move_to_end(question)
            return (entry[1],)


class NoAnswer(Exception):
    """A rung that has nothing to say."""


class UnwantedResult(Exception):
    """What a rung is given when the dependency answered with a value that the classifier calls a failure."""

    def __init__(self, value: Any) -> None:
        self.value = value
        super().__init__(f"unwanted result of type {type(value).__name__}")


class FallbackNode:
    """Runs the rest, and answers in its place where that is allowed."""

    __slots__ = ("_answers", "_last_good", "_on_discard", "_rung_seconds", "_rungs", "inner")

    def __init__(
        self,
        inner: Node,
        rungs: tuple[Any, ...],
        rung_seconds: float,
        answers: Answers,
        on_discard: OnDiscard | None = None,
    ) -> None:
        self.inner = inner
        self._on_discard = on_discard
        self._rungs = rungs
        self._rung_seconds = rung_seconds
        self._last_good = next((rung for rung in rungs if isinstance(rung, LastGood)), None)
        self._answers = answers

    async def run(self, call: Call) -> Any:
        """Return the live answer, or the first one a rung has."""
        question = self._question(call)
        value: Any = None
        error: Any = None
        try:
            value = await self.inner.run(call)
            if self._is_kept(call, question, value):
                return value
            error = UnwantedResult(value)
            raise error
        except Exception as caught:
            error = caught
            if not self._may_replace(call):
                raise
            for number, rung in enumerate(self._rungs, 1):
                try:
                    answer = self._answer(rung, call, question, error)
                    if is_awaitable(answer):
                        if call.is_blocking:
                            close_it(answer)
                            raise TypeError(f"rung {number} is async; a sync call cannot await it")
                        answer = await within(await_it(answer), self._rung_seconds, call.clock)
                except NoAnswer:
                    continue
                except Exception as rung_error:
                    _note(error, number, rung_error)
                    continue
                if isinstance(error, UnwantedResult) and answer is not error.value:
                    await discard(error.value, self._on_discard, call)
                return self._used(call, number, rung, answer)
            if isinstance(error, UnwantedResult):
                return error.value
            raise
        finally:
            error = None  # a traceback that refers to itself would live until the next collection

    def _is_kept(self, call: Call, question: tuple[Any, ...] | None, value: Any) -> bool:
        """Whether a live value is the answer; a good one is remembered."""
        if call.verdict is None:
            if question is not None:
                self._answers.keep(question, value, call.now)
            return True
        return not self._may_replace(call)

    @staticmethod
    def _may_replace(call: Call) -> bool:
        return call.verdict is not None and call.verdict.kind in _REPLACED

    def _question(self, call: Call) -> tuple[Any, ...] | None:
        last_good = self._last_good
        if last_good is None:
            return None
        function = call.function if call.without_chaos is None else call.without_chaos
        if last_good.key is not None:
            question = (function, last_good.key(*call.args, **call.kwargs))
            hash(question)  # now: found out after the call, its answer would be lost
            return question
        if call.args or call.kwargs:
            raise PolicyUsageError(
                f"policy {call.name!r}: Fallback.last_good needs key= for a function with arguments; else it would "
                "answer for another question"
            )
        return (function,)

    def _answer(self, rung: Any, call: Call, question: tuple[Any, ...] | None, error: Exception) -> Any:
        if isinstance(rung, LastGood):
            found = None if question is None else self._answers.find(question, rung.age_seconds_max, call.now)
            if found is None:
                raise NoAnswer
            return found[0]
        if isinstance(rung, Constant):
            return rung.value
        return rung(error) if callable(rung) else rung

    @staticmethod
    def _used(call: Call, number: int, rung: Any, value: Any) -> Any:
        call.source = "stale" if isinstance(rung, LastGood) else "fallback"
        if events.listeners:
            events.emit(events.FallbackUsed(policy=call.name, key=call.key, source=call.source, rung=number))
        return value


def takes_arguments(function: Callable[..., Any]) -> bool:
    """Whether a function has parameters, as far as that can be seen."""
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return True


def _note(error: Exception, number: int, rung_error: Exception) -> None:
    add_note(error, f"fallback {number} failed too: {text_of(rung_error)}")
