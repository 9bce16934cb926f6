"""One use of a policy, and what is known of it so far.

Fields start as defaults of the class, so that a call which needs nothing special sets almost nothing: this object is
made for every protected call."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from spoolproof.clock import Clock
from spoolproof.errors import InvariantViolated, PolicyUsageError
from spoolproof.policies.judging.verdict import Verdict

T = TypeVar("T")
_COST_MAX = sys.float_info.max  #: a whole number beyond it is no finite float
LANES = ("critical", "normal", "background")
_idempotency_key: ContextVar[str | Held[str] | None] = ContextVar("spoolproof.idempotency_key", default=None)


class Held(Generic[T]):
    """The value of a context variable for the length of a call or a block.

    A task that was started inside has a copy of the context for life, and a block in an async generator may end in
    another context than it began in. No token can undo that, so the value knows when it is over, and whoever reads it
    looks through it: nobody's background task lives under the deadline of a call that ended long ago.
    """

    __slots__ = ("_before", "_variable", "is_over", "value")

    def __init__(self, variable: ContextVar[T | Held[T] | None], value: T | None) -> None:
        self._variable = variable
        self._before = variable.get()
        if self._before is not None:  # it may be over, and would be kept for nothing
            current(variable)
            self._before = variable.get()
        self.value = value
        self.is_over = False
        variable.set(self)

    def end(self) -> None:
        """Have held for long enough."""
        self.is_over = True
        if self._variable.get() is self:
            self._variable.set(self._before)


def current(variable: ContextVar[T | Held[T] | None]) -> T | None:
    """Return the value in force here, and forget those that are over."""
    kept = found = variable.get()
    while isinstance(found, Held) and found.is_over:
        found = found._before
    if found is not kept:
        variable.set(found)
    return found.value if isinstance(found, Held) else found


def idempotency_key() -> str | None:
    """Return the key given to `using(idempotency_key=…)` of the innermost call: the same on every attempt and hedge."""
    return current(_idempotency_key)


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine of a call that is_blocking: it waits by blocking, so its first step is its last."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    except RuntimeError as error:
        raised = error.__cause__
        if isinstance(raised, StopIteration) and str(error) == "coroutine raised StopIteration":
            raise raised from None  # the function's, which no coroutine lets through
        raise
    coroutine.close()
    raise InvariantViolated("a call on a thread waited for an event loop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one call may ask for. lane: critical, normal or background. cost: tokens of the rate limit."""

    idempotency_key: str | None = None
    lane: str = "normal"
    cost: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no call can ask for."""
        if self.lane not in LANES:
            raise PolicyUsageError(f"lane={self.lane!r}: use {', '.join(LANES)}")
        if isinstance(self.cost, bool) or not isinstance(self.cost, int | float) or not 0 < self.cost <= _COST_MAX:
            raise PolicyUsageError(f"cost={self.cost!r}: a finite number above 0")
        if self.idempotency_key is not None and not (isinstance(self.idempotency_key, str) and self.idempotency_key):
            raise PolicyUsageError(f"idempotency_key={self.idempotency_key!r}: a text that is not empty")


class Owner(Protocol):
    """The policy a call belongs to, as its parts see it."""

    name: str
    key: str | None
    clock: Clock
    is_idempotent: bool


class Call:
    """One use of a policy. now: the last reading of the clock. attempts: begun so far, hedges included. tries: what
    Retry counts. is_blocking: it is made on a thread that may wait, not by a task. verdict: of the last attempt that
    did not succeed. is_unknown: whether any attempt may have had its effect. without_chaos: the function, where faults
    were put around it. on_end: told how a block ended; only blocks have it."""

    owner: Owner
    function: Callable[..., Any]
    on_end: Callable[[Call, BaseException | None], None]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    options: Options | None = None
    lane: str = "normal"
    cost: float = 1.0
    now: float = 0.0
    started_at: float = 0.0
    deadline_at: float | None = None
    attempts: int = 0
    tries: int = 0
    attempts_max: int = 1
    attempt_started_at: float = 0.0
    has_started: bool = False
    verdict: Verdict | None = None
    is_unknown: bool = False
    source: str = "live"
    stop_reason: str = ""
    is_blocking: bool = False
    without_chaos: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.owner.name

    @property
    def key(self) -> str | None:
        """The key of a keyed child, else None."""
        return self.owner.key

    @property
    def clock(self) -> Clock:
        """The clock everything in this call is measured by."""
        return self.owner.clock

    @property
    def is_idempotent(self) -> bool:
        """Whether it may be made again although its effect may have happened."""
        return self.owner.is_idempotent or (self.options is not None and self.options.idempotency_key is not None)

    def limit_at(self, seconds: float | None) -> float | None:
        """Return when what begins now has to end: after `seconds`, or at the deadline if that is nearer."""
        if seconds is None or (self.deadline_at is not None and self.deadline_at < self.now + seconds):
            return self.deadline_at
        return self.now + seconds

    def fork(self) -> Call:
        """Return a call that makes one more attempt at the same thing beside this one."""
        twin = Call()
        twin.__dict__.update(self.__dict__)
        return twin

    def join(self, twin: Call) -> None:
        """Take over how the attempt of a fork ended."""
        self.verdict = twin.verdict
        self.is_unknown = self.is_unknown or twin.is_unknown
        self.now = max(self.now, twin.now)


class Node(Protocol):
    """A part of the pipeline that runs everything inside it."""

    async def run(self, call: Call) -> Any:
        """Return the value of the call, or raise its error; `call.verdict` says what an end that is no success
        means."""


class Guard(Protocol):
    """What an attempt needs before it may run, and what learns how it ended.

    needs_time: whether `leave` has to be told when the attempt ended, and not only that it did."""

    @property
    def needs_time(self) -> bool:
        """See above."""

    def enter(self, call: Call, now: float) -> object | None:
        """Admit the attempt and return a permit, or None if it has to wait. Raises CallRejected."""

    async def wait(self, call: Call) -> object:
        """Return a permit once admitted. Raises CallRejected or DeadlineExceeded."""

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Give the permit back; called exactly once for each."""


is_repeating: ContextVar[bool | Held[bool] | None] = ContextVar("spoolproof.is_repeating", default=None)
is_delivery: ContextVar[bool | Held[bool] | None] = ContextVar("spoolproof.is_delivery", default=None)


class within_delivery:  # a generator takes twice as long, for every message
    """Say that the block handles a message; is_again: it was tried before, so that retries inside do not multiply."""

    __slots__ = ("_delivery", "_is_again", "_repeating")

    def __init__(self, *, is_again: bool) -> None:
        self._is_again = is_again

    def __enter__(self) -> None:
        self._delivery = Held(is_delivery, True)
        self._repeating = Held(is_repeating, True) if self._is_again else None

    def __exit__(self, *_: object) -> None:
        if self._repeating is not None:
            self._repeating.end()
        self._delivery.end()


def refuse_event_loop(what: str) -> None:
    """Raise PolicyUsageError on a thread that runs an event loop: blocking it would stop everything on it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise PolicyUsageError(
        f"{what} would block the event loop that runs on this thread; use the async form, or asyncio.to_thread"
    )
