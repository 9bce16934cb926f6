"""A ladder: one question, and cheaper answers for when the best is not to be had.

Primary, then what was cached last, then a default, then what can still be computed: the first that answers is served,
with its rung, its age and the reason. Every step has its own time inside the ladder's deadline, which what is called
sees, too (`policies.deadline.remaining()`).

Health chooses, and never keeps the primary away for long: while its dependency is unhealthy one call a second tries it,
so its return waits for its breaker alone. A refusal of the dependency (permanent), a bug and a cancellation are no
outages: they pass through as they are.

Must never happen: a fallback that loads another dependency harder unasked; a value served as fresh that is not; a write
that pretends to have happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from typing import Any, TypeVar

from spoolproof.backoff import RandomSource
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.degradation.errors import DegradationError, DegradedError
from spoolproof.degradation.events import DrillStarted, FallbackFailed
from spoolproof.degradation.rung import PRIORITY, RUNNING_MAX, TIMEOUT_SECONDS, Declaration, Kind, Rung
from spoolproof.degradation.shed import Offer
from spoolproof.errors import Action, BreakerOpen, CallRejected, Disposition, NotStarted
from spoolproof.policies import Kind as Verdict
from spoolproof.policies import Report, report
from spoolproof.policies.call import Held, current
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.judging.report import attach
from spoolproof.policies.judging.verdict import verdict_of
from spoolproof.policies.running.timeout import within
from spoolproof.ports.broker import Spawn
from spoolproof.ports.cache import LastGood, Served
from spoolproof.ports.health import HealthView, Status
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

F = TypeVar("F", bound=Callable[..., Any])
TRIAL_SECONDS = 1.0
"""How often a primary is tried although its dependency is unhealthy."""
PREFERS_CACHED_AT = 2  #: the level from which on a cached value is enough
EXERCISE_SHARE = 0.001
EXERCISE_SECONDS = 1.0
DRILL_SECONDS_MAX = 3600.0


@dataclass(slots=True)
class Context:
    """What a ladder needs while its service runs."""

    view: HealthView
    offer: Offer
    clock: Clock
    random: RandomSource
    spawn: Spawn
    folded: Folded


@dataclass(slots=True)
class Drill:
    """Calls that begin at a fallback on purpose."""

    kind: Kind
    share: float
    until: float


class _Empty(Exception):
    """A rung has nothing to offer: no error, and no answer."""


@dataclass(slots=True)
class _Turn:
    """One call of a ladder. why: the reason of what is served next. tried: what became of each rung."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ends_at: float
    why: str | None = None
    error: Exception | None = None
    tried: list[tuple[str, str]] = field(default_factory=list)


class Ladder:
    """Made by `service.degradation.ladder(name)`; rungs are put on it, then `await ladder.serve(…)`."""

    def __init__(self, name: str, *, deadline: float, write: bool, place: str = "") -> None:
        self.name = name
        self.declared = Declaration(name, deadline, write)
        self.context: Context | None = None
        self.served: Counter[str] = Counter()
        self.exercises: Counter[str] = Counter()
        self.failing: str | None = None  #: what was wrong with the first fallback when it was exercised last
        self._running = 0
        self._keeping = 0
        self._tried_at = self._exercised_at = float("-inf")
        self._drill: Drill | None = None

    # --- declare -----------------------------------------------------------------------------------------------------

    def primary(self, *, dependency: object = None, timeout: float | None = None) -> Callable[[F], F]:
        """Register what gives the best answer. dependency: the policy it calls, or its name; its health decides whether
        it is called. timeout: seconds; default: the deadline less the time of one fallback."""

        def register(function: F) -> F:
            if self.declared.primary is not None:
                self.declared.faults.append(f"{_name(function)}: it has a primary already")
            self.declared.primary = Rung(
                kind=Kind.PRIMARY,
                name=_name(function),
                function=function,
                dependency=_dependency(dependency),
                timeout=timeout,
            )
            return function

        return register

    def cached(self, cache: LastGood, key: str, *, age_seconds_max: float = 86_400.0, priority: int = PRIORITY) -> None:
        """Fall back on the last value of a cache, fresh or not, which is not loaded for it; what the primary answers is
        kept there. key: a template of the primary's parameters, such as `{sku}`."""
        name = f"cached({key!r})"
        made = Rung(kind=Kind.CACHED, name=name, cache=cache, template=key, age_seconds_max=age_seconds_max,
                    priority=priority, timeout=TIMEOUT_SECONDS)  # fmt: skip
        self._add(made)

    def default(
        self,
        *,
        priority: int = PRIORITY,
        timeout: float = TIMEOUT_SECONDS,
        dependency: object = None,
        extra_dependency: bool = False,
    ) -> Callable[[F], F]:
        """Register a configured answer, plain or async. dependency: what it calls, if anything: skipped while that is
        unhealthy; another one than the primary's needs extra_dependency=True."""
        return self._registering(
            Kind.DEFAULT, priority=priority, timeout=timeout, dependency=_dependency(dependency),
            is_extra=extra_dependency,
        )  # fmt: skip

    def partial(
        self,
        *,
        parts: tuple[str, ...],
        priority: int = PRIORITY,
        timeout: float = TIMEOUT_SECONDS,
        dependency: object = None,
        extra_dependency: bool = False,
    ) -> Callable[[F], F]:
        """Register what can still be computed. parts: what is left out, given as the set `missing`; the function takes
        out of it what it has after all, and what stays is in `Served.missing`."""
        return self._registering(
            Kind.PARTIAL, priority=priority, timeout=timeout, dependency=_dependency(dependency),
            is_extra=extra_dependency, parts=tuple(parts),
        )  # fmt: skip

    def spooled(self, *, priority: int = PRIORITY, timeout: float = TIMEOUT_SECONDS) -> Callable[[F], F]:
        """Register how a write is kept durably instead, for a ladder with `write=True`: it returns the `Receipt` of
        what it has published."""
        return self._registering(Kind.SPOOLED, priority=priority, timeout=timeout)

    def _registering(self, kind: Kind, **how: Any) -> Callable[[F], F]:
        def register(function: F) -> F:
            self._add(Rung(kind=kind, name=_name(function), function=function, **how))
            return function

        return register

    def _add(self, rung: Rung) -> None:
        self.declared.fallbacks.append(rung)

    # --- serve -------------------------------------------------------------------------------------------------------

    async def serve(self, *args: Any, **kwargs: Any) -> Served[Any]:
        """Return the best answer there is within the deadline, and where it is from.

        Raises DegradedError when no rung has one; what the primary raises for a refusal or a bug; NotStarted.
        """
        context = self.context
        if context is None:
            raise NotStarted(f"ladder {self.name!r} is used before its service was started, or after it was stopped")
        now, earlier = context.clock.monotonic(), current(ends_at)
        until = now + self.declared.seconds
        turn = _Turn(args, kwargs, until if earlier is None else min(until, earlier))
        held = Held(ends_at, turn.ends_at)
        try:
            found = await self._climb(context, turn)
        except DegradedError:
            self.served["none"] += 1
            raise
        finally:
            held.end()
        self.served[found.rung] += 1
        if found.rung == "primary":
            self._exercise_if_due(context, turn)
        return found

    async def _climb(self, of: Context, turn: _Turn) -> Served[Any]:
        declared, drill = self.declared, self._drill_now(of)
        rungs, at_hand = declared.rungs, None
        if drill is not None:
            turn.why, rungs = "drill", [one for one in rungs if one.kind >= drill.kind]
        elif self._is_skipped(of):
            turn.why = "unhealthy"
        elif rungs[0].kind is Kind.CACHED and (self._is_degraded(of) or of.offer.level >= PREFERS_CACHED_AT):
            at_hand = await self._at_hand(of, turn, rungs[0])
            if at_hand is not None and of.offer.level >= PREFERS_CACHED_AT:
                return replace(at_hand, reason="level")
        if turn.why is not None:
            turn.tried.append(("primary", turn.why))
        elif (found := await self._call_primary(of, turn, is_short=at_hand is not None)) is not None:
            return found
        if at_hand is not None:
            return replace(at_hand, reason=turn.why)
        for rung in rungs:
            if (found := await self._call_fallback(of, turn, rung)) is not None:
                return found
        if drill is not None and (found := await self._call_primary(of, turn)) is not None:
            return found  # nobody goes without an answer for the sake of a drill
        raise self._degraded(turn)

    def _drill_now(self, of: Context) -> Drill | None:
        drill = self._drill
        if drill is not None and of.clock.monotonic() >= drill.until:
            drill = self._drill = None
        return drill if drill is not None and of.random.uniform(0.0, 1.0) < drill.share else None

    def _is_degraded(self, of: Context) -> bool:
        return self._status(of, self.declared.primary) is Status.DEGRADED

    def _is_skipped(self, of: Context) -> bool:
        """Whether the primary is unhealthy, and another call has tried it within the last second."""
        if self._status(of, self.declared.primary) is not Status.UNHEALTHY:
            return False
        now = of.clock.monotonic()
        if now - self._tried_at < TRIAL_SECONDS:
            return True
        self._tried_at = now
        return False

    async def _call_primary(self, of: Context, turn: _Turn, *, is_short: bool = False) -> Served[Any] | None:
        primary, seconds = self.declared.primary, self.declared.primary_seconds
        if primary is None or primary.function is None:
            return None
        seconds = seconds / 2 if is_short else seconds
        try:
            value, keep = await within(self._primary(turn, primary.function), self._left(of, turn, seconds), of.clock)
        except Exception as error:
            seen = report(error)
            if seen.verdict.kind in (Verdict.PERMANENT, Verdict.BUG):
                raise
            turn.why, turn.error = _word(error, seen), error
            turn.tried.append(("primary", error_line(error)))
            return None
        if keep is not None and self._keeping < RUNNING_MAX:
            of.spawn(self._keep(keep, value), "degradation.keep")
        return Served(value=value, fresh=True, age_seconds=0.0, source="function", rung="primary")

    async def _primary(self, turn: _Turn, function: Callable[..., Any]) -> tuple[Any, Any]:
        keep = None
        rung = next((one for one in self.declared.rungs if one.kind is Kind.CACHED), None)
        if rung is not None and rung.cache is not None:
            keep = await rung.cache.keeping(self._key(turn, rung))  # before: what is removed meanwhile stays removed
        return await _called(function, *turn.args, **turn.kwargs), keep

    async def _keep(self, keep: Callable[[Any], Awaitable[None]], value: Any) -> None:
        self._keeping += 1
        try:
            await keep(value)
        finally:
            self._keeping -= 1

    async def _at_hand(self, of: Context, turn: _Turn, rung: Rung) -> Served[Any] | None:
        try:
            found: Served[Any] = await within(self._run(turn, rung), self._left(of, turn, TIMEOUT_SECONDS), of.clock)
            return found
        except Exception:  # it is looked at again when it is needed
            return None

    async def _call_fallback(self, of: Context, turn: _Turn, rung: Rung) -> Served[Any] | None:
        word, left = rung.kind.word, self._left(of, turn, rung.timeout)
        skip = None
        if self._status(of, rung) is Status.UNHEALTHY and rung.dependency is not None:
            skip = f"{rung.dependency} is unhealthy"
        elif left <= 0:
            skip = "no time is left"
        elif self._running >= RUNNING_MAX:
            skip = f"{RUNNING_MAX} fallbacks run already"
        if skip is not None:
            turn.tried.append((word, skip))
            return None
        self._running += 1
        try:
            found: Served[Any] = await within(self._run(turn, rung), left, of.clock)
            return replace(found, reason=turn.why)
        except _Empty as error:
            turn.tried.append((word, str(error)))
        except Exception as error:
            turn.tried.append((word, error_line(error)))
            self._tell_failed(of, rung, error, is_exercise=False)
        finally:
            self._running -= 1
        return None

    async def _run(self, turn: _Turn, rung: Rung) -> Served[Any]:
        """Return what a fallback has. Raises _Empty, and whatever it raises."""
        if rung.cache is not None:
            found = await rung.cache.last_good(self._key(turn, rung))
            if found is None:
                raise _Empty("nothing is cached")
            if found.age_seconds > rung.age_seconds_max:
                raise _Empty(f"what is cached is {found.age_seconds:.0f} s old")
            return replace(found, rung="cached")
        assert rung.function is not None
        missing = set(rung.parts)
        more = {"missing": missing} if rung.kind is Kind.PARTIAL else {}
        value = await _called(rung.function, *turn.args, **turn.kwargs, **more)
        if rung.kind is Kind.SPOOLED and not hasattr(value, "place"):
            raise TypeError(
                f"{rung.name} returned {type(value).__name__}, not the Receipt of a publish: nothing is kept"
            )
        source = "default" if rung.kind is Kind.DEFAULT else "function"
        return Served(value=value, fresh=False, age_seconds=0.0, source=source, rung=rung.kind.word,
                      missing=tuple(sorted(missing)))  # fmt: skip

    def _key(self, turn: _Turn, rung: Rung) -> str:
        return self.declared.key_of[rung.name](turn.args, turn.kwargs)

    @staticmethod
    def _left(of: Context, turn: _Turn, seconds: float | None) -> float:
        left = turn.ends_at - of.clock.monotonic()
        return left if seconds is None else min(left, seconds)

    @staticmethod
    def _status(of: Context, rung: Rung | None) -> Status:
        return Status.UNKNOWN if rung is None or rung.dependency is None else of.view.status_of(rung.dependency)

    def _degraded(self, turn: _Turn) -> DegradedError:
        degraded = DegradedError(self.name, turn.tried)
        degraded.__cause__ = turn.error
        if turn.error is not None:
            kept = report(turn.error)
        else:  # it was not called: an outage, which counts against no message
            verdict = verdict_of(Verdict.LOCAL, reason=str(degraded))
            kept = Report(verdict, 0, 0.0, "", Disposition(Action.DEFER, str(degraded)), is_breaker_closed=False)
        attach(degraded, kept, f"ladder {self.name!r}", "")
        return degraded

    # --- drill and exercise ------------------------------------------------------------------------------------------

    def drill(self, rung: str, share: float, seconds: float) -> Callable[[], None]:
        """See `service.degradation.drill`."""
        of = self.context
        known = {one.kind.word: one.kind for one in self.declared.fallbacks}
        faults = [] if rung in known else [f"rung={rung!r}: {', '.join(known)}"]
        if not isinstance(share, int | float) or not 0 < share <= 1:
            faults.append(f"share={share!r}: above 0 and at most 1")
        if not isinstance(seconds, int | float) or not 0 < seconds <= DRILL_SECONDS_MAX:
            faults.append(f"seconds={seconds!r}: above 0 and at most {DRILL_SECONDS_MAX:g}")
        if faults:
            raise DegradationError(f"drill of {self.name!r}: " + "; ".join(faults))
        if of is None:
            raise NotStarted(f"ladder {self.name!r} is drilled while its service runs")
        drill = self._drill = Drill(known[rung], share, of.clock.monotonic() + seconds)
        emit(DrillStarted(ladder=self.name, rung=rung, share=share, seconds=seconds))

        def end() -> None:
            if self._drill is drill:
                self._drill = None

        return end

    def _exercise_if_due(self, of: Context, turn: _Turn) -> None:
        now = of.clock.monotonic()
        if now - self._exercised_at >= EXERCISE_SECONDS and of.random.uniform(0.0, 1.0) < EXERCISE_SHARE:
            self._exercised_at = now
            of.spawn(self.exercise(turn.args, turn.kwargs), "degradation.exercise")

    async def exercise(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the first fallback for nobody, and count how that went: one that is never used may not work."""
        of, rung = self.context, self.declared.rungs[0]
        if of is None or rung.kind is Kind.SPOOLED or self._running >= RUNNING_MAX:
            return  # what is spooled would be published
        turn, outcome = _Turn(args, kwargs, of.clock.monotonic() + TIMEOUT_SECONDS), "done"
        self._running += 1
        try:
            await within(self._run(turn, rung), rung.timeout or TIMEOUT_SECONDS, of.clock)
            self.failing = None
        except _Empty:
            outcome = "empty"
        except Exception as error:
            outcome, self.failing = "failed", error_line(error)
            self._tell_failed(of, rung, error, is_exercise=True)
        finally:
            self._running -= 1
        self.exercises[outcome] += 1

    def _tell_failed(self, of: Context, rung: Rung, error: Exception, *, is_exercise: bool) -> None:
        event = FallbackFailed(ladder=self.name, rung=rung.name, exercise=is_exercise, error=error_line(error))
        of.folded.emit(event)


async def _called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    found = function(*args, **kwargs)
    return await found if isawaitable(found) else found


def _word(error: Exception, seen: Report) -> str:
    if isinstance(error, BreakerOpen):
        return "breaker_open"
    if isinstance(error, CallRejected):
        return "shed"
    timed_out = isinstance(error, TimeoutError) or seen.verdict.kind in (Verdict.TIMEOUT, Verdict.DEADLINE)
    return "timeout" if timed_out else "error"


def _name(function: object) -> str:
    return getattr(function, "__name__", repr(function))


def _dependency(given: object) -> str | None:
    """Return the name of a policy, given as itself or by name."""
    name = getattr(given, "name", given)
    return None if name is None else str(name)
