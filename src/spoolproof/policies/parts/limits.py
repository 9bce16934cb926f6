"""How many calls at once and a second, how often, for how long, and what to answer instead: bulkhead, rate limit,
retry, hedge, timeout, deadline and fallback as they are declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from spoolproof.policies.functions import OnDiscard
from spoolproof.policies.parts.part import Part


@dataclass(eq=False, repr=False)
class Adaptive(Part):
    """A limit that moves: `Bulkhead(Adaptive())`.

    limit_initial: calls at once to begin with (default 20). It stays within limit_min (default 1) and limit_max
    (default 200). Each 1 to 10,000, in this order.
    """

    kind: ClassVar[str] = "adaptive"
    _: KW_ONLY
    limit_initial: int | None = None
    limit_min: int | None = None
    limit_max: int | None = None

    def _faults(self) -> list[str]:
        numbers = [one for one in (self.limit_min, self.limit_initial, self.limit_max) if isinstance(one, int)]
        if numbers == sorted(numbers):
            return []
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("limit_min", "limit_initial", "limit_max"))
        return [f"{given}: in this order, none above the next"]


@dataclass(eq=False, repr=False)
class Bulkhead(Part):
    """Lets at most `running_max` calls run at once (default 32, 1 to 10,000); further ones queue.

    running_max: `Adaptive()` instead of a number finds the limit by itself. queue_max: how many may wait (default
    2 × running_max, 0 to 100,000). wait_seconds_max: how long (default 1, 0 to 60). Those of lane critical come before
    normal before background; a full queue refuses the newest of the lowest lane. Whoever is refused gets BulkheadFull.
    """

    kind: ClassVar[str] = "bulkhead"
    settings: ClassVar[tuple[str, ...]] = ("running_max", "queue_max", "wait_seconds_max", *Adaptive.settings)
    running_max: int | Adaptive | None = None
    _: KW_ONLY
    queue_max: int | None = None
    wait_seconds_max: float | None = None

    def __post_init__(self) -> None:
        self.adaptive = self.running_max if isinstance(self.running_max, Adaptive) else None
        limit = {"running_max": self.running_max} if self.adaptive is None else self.adaptive.given
        Part.__init__(self, {"queue_max": self.queue_max, "wait_seconds_max": self.wait_seconds_max, **limit})


@dataclass(eq=False, repr=False)
class RateLimit(Part):
    """Lets `rate` calls through each `per_seconds` (default 1), after a pause `burst` (default: rate, or 1) at once.

    Further ones wait up to `wait_seconds_max` (default 1, 0 to 60), at most `queue_max` (default 64) of them, first
    come, first served; then RateLimited, which says when to come back. A call counts as `using(cost=…)` tokens, 1 by
    default; ValueError for a cost above the burst.
    """

    kind: ClassVar[str] = "rate_limit"
    rate: float | None = None
    _: KW_ONLY
    per_seconds: float | None = None
    burst: float | None = None
    wait_seconds_max: float | None = None
    queue_max: int | None = None


@dataclass(eq=False, repr=False)
class Retry(Part):
    """Makes up to `attempts` attempts (default 3, the first included, 1 to 10).

    delay_seconds: bound of the first delay (0.1); each further one times delay_factor (2), up to delay_seconds_max
    (20). retry_after_seconds_max: the longest Retry-After that is waited out (60). inline_seconds_max: the longest
    delay that is slept inside a message's handler (2); a longer one defers the message. budget_ratio,
    budget_per_second_min: retries may be at most this share of calls (0.2) plus this many a second (1), over 10 s.
    nested: "one" or "allow". on_discard: called with a judged result that is tried again, before the back-off; unless
    given, what has `aclose` or `close` is closed. Source of the delay: full jitter, "Exponential Backoff And Jitter"
    (AWS Architecture Blog, 2015)."""

    kind: ClassVar[str] = "retry"
    attempts: int | None = None
    _: KW_ONLY
    delay_seconds: float | None = None
    delay_factor: float | None = None
    delay_seconds_max: float | None = None
    retry_after_seconds_max: float | None = None
    inline_seconds_max: float | None = None
    budget_ratio: float | None = None
    budget_per_second_min: float | None = None
    nested: str = "one"
    on_discard: OnDiscard | None = None

    def _faults(self) -> list[str]:
        return [] if self.nested in ("one", "allow") else [f"nested={self.nested!r}: 'one' or 'allow'"]


@dataclass(eq=False, repr=False)
class Hedge(Part):
    """Runs up to `hedge_extra_max` (default 1, 1 to 3) further attempts beside one that is slow. Only for idempotent
    calls of async functions; PolicyUsageError otherwise.

    on_discard: called with the result of an attempt that finished although another had won; unless given, what has
    `aclose` or `close` is closed. What it raises is logged. The wait before each is the 95th percentile seen, at least
    10 ms; until 50 calls were seen, a quarter of the timeout."""

    kind: ClassVar[str] = "hedge"
    hedge_extra_max: int | None = None
    _: KW_ONLY
    on_discard: OnDiscard | None = None


@dataclass(eq=False, repr=False)
class Timeout(Part):
    """Bounds each attempt to `timeout_seconds` (default 10, 0.001 to 3,600), or to the caller's deadline if that is
    nearer.

    Its expiry raises AttemptTimeout, the caller's deadline DeadlineExceeded; both are TimeoutErrors, and whether the
    effect happened is unknown. A body that ignores its cancellation is waited for.
    """

    kind: ClassVar[str] = "timeout"
    timeout_seconds: float | None = None


@dataclass(eq=False, repr=False)
class Deadline(Part):
    """Bounds the whole call, waits and back-off included, to `deadline_seconds` (default 30, 0.001 to 3,600).

    A deadline that already applies and ends earlier stays. Expiry raises DeadlineExceeded. A sync function is not cut
    off by it: nothing starts after it, and `deadline.remaining()` tells what is left; a Timeout cuts it off.
    """

    kind: ClassVar[str] = "deadline"
    deadline_seconds: float | None = None


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
