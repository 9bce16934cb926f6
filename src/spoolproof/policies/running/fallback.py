"""What to answer when the dependency gives no answer.

A chain: values, or functions of the error, tried in order; the first that returns wins. `Result.source` says where an
answer came from. An answer that was given (a 404, a refusal) is never replaced, nor is a bug, nor a cancellation. When
all fail, the original error is raised with theirs as notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spoolproof.errors import PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call, Node
from spoolproof.policies.functions import OnDiscard, await_it, close_it, is_awaitable
from spoolproof.policies.judging.classifier import text_of
from spoolproof.policies.judging.report import add_note
from spoolproof.policies.judging.verdict import Kind
from spoolproof.policies.machines.memory import Answers
from spoolproof.policies.parts.limits import Constant, LastGood
from spoolproof.policies.running.timeout import discard, within

_REPLACED = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT, Kind.RATE_LIMITED, Kind.LOCAL, Kind.DEADLINE})


class NoAnswer(Exception):
    """A rung that has nothing to say."""


class UnwantedResult(Exception):
    """What a rung is given when the dependency answered with a value that the classifier calls a failure."""

    def __init__(self, value: Any) -> None:
        self.value = value
        super().__init__(f"unwanted result of type {type(value).__name__}")


@dataclass(slots=True, eq=False)
class FallbackNode:
    """Runs the rest, and answers in its place where that is allowed."""

    inner: Node
    rungs: tuple[Any, ...]
    rung_seconds: float
    answers: Answers
    on_discard: OnDiscard | None = None
    _last_good: LastGood | None = field(init=False)

    def __post_init__(self) -> None:
        self._last_good = next((rung for rung in self.rungs if isinstance(rung, LastGood)), None)

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
            for number, rung in enumerate(self.rungs, 1):
                try:
                    answer = self._answer(rung, call, question, error)
                    if is_awaitable(answer):
                        if call.is_blocking:
                            close_it(answer)
                            raise TypeError(f"rung {number} is async; a sync call cannot await it")
                        answer = await within(await_it(answer), self.rung_seconds, call.clock)
                except NoAnswer:
                    continue
                except Exception as rung_error:
                    _note(error, number, rung_error)
                    continue
                if isinstance(error, UnwantedResult) and answer is not error.value:
                    await discard(error.value, self.on_discard, call)
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
                self.answers.keep(question, value, call.now)
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
            found = None if question is None else self.answers.find(question, rung.age_seconds_max, call.now)
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
            events.emit(events.FallbackUsed(call.name, call.key, source=call.source, rung=number))
        return value


def _note(error: Exception, number: int, rung_error: Exception) -> None:
    add_note(error, f"fallback {number} failed too: {text_of(rung_error)}")
