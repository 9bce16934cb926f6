"""Faults on purpose, to see what a service does. A part like any other, around the function itself.

Inert unless the environment says SPOOLPROOF_CHAOS=1 or a test clock is in force: a policy with chaos in it may be
shipped. Where the environment switched it on, a warning a minute says so. The same seed gives the same sequence."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from spoolproof.backoff import seeded_random
from spoolproof.clock import is_replaced
from spoolproof.errors import AttemptTimeout, PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call, run_now
from spoolproof.policies.functions import await_it, is_awaitable, refuse_generators
from spoolproof.policies.parts.part import Part

logger = logging.getLogger("spoolproof.policies")
ENABLED = "SPOOLPROOF_CHAOS"
_WARN_SECONDS = 60.0
_NO_RESULT: Any = object()
_WAYS: dict[str, Any] = {
    "fault": None,
    "latency_seconds": None,
    "result": _NO_RESULT,
    "behaviour": None,
    "unknown": False,
    "hang": False,
    "cancel": False,
}
"""What may go wrong, and what stands for "not this"."""


@dataclass(eq=False, repr=False)
class Chaos(Part):
    """Makes a share of attempts go wrong, in exactly one way.

    rate: 0 to 1, 0 unless given. seed: of the sequence; attempts draw from it in the order in which they reach the
    function. when: a predicate on the call's arguments; attempts it refuses draw nothing. fault: an exception (copied
    each time), or a class or function that makes one, to raise instead of calling. latency_seconds: to wait before
    calling, 0 to 3,600. result: to return instead of calling, also None. behaviour: a function called instead.
    unknown: do the work, then raise AttemptTimeout: finds missing idempotency. hang: never return (async only, else
    PolicyUsageError). cancel: raise CancelledError. Blocks (`permit`, `attempts`) have no function, and no chaos.
    Raises PolicyConfigError with every fault."""

    kind: ClassVar[str] = "chaos"
    settings: ClassVar[tuple[str, ...]] = ()
    rate: float = 0.0
    _: KW_ONLY
    seed: int = 0
    when: Callable[..., bool] | None = None
    fault: Exception | Callable[[], Exception] | None = None
    latency_seconds: float | None = None
    result: Any = _NO_RESULT
    behaviour: Callable[..., Any] | None = None
    unknown: bool = False
    hang: bool = False
    cancel: bool = False

    def __post_init__(self) -> None:
        chosen = [way for way, unused in _WAYS.items() if getattr(self, way) is not unused]
        super().__init__({}, self._faults_of(chosen))
        self.way = chosen[0]
        self._random = seeded_random(self.seed)
        self._warned_at = float("-inf")

    def _faults_of(self, chosen: list[str]) -> Iterator[str]:
        if not _is_number(self.rate, 1):
            yield f"rate={self.rate!r}: a number from 0 to 1"
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            yield f"seed={self.seed!r}: a whole number"
        if len(chosen) != 1:
            yield f"behaviour={chosen}: exactly one of {', '.join(_WAYS)}"
        if self.latency_seconds is not None and not _is_number(self.latency_seconds, 3600):
            yield f"latency_seconds={self.latency_seconds!r}: a number from 0 to 3,600"
        if self.fault is not None and not _is_fault(self.fault):
            yield f"fault={self.fault!r}: an Exception, or a class or function that makes one; see cancel=True"
        for name in ("when", "behaviour"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                yield f"{name}={function!r}: a function"

    def __repr__(self) -> str:
        when = "" if self.when is None else f", when={_shown(self.when)}"
        return f"Chaos({self.rate!r}, seed={self.seed}{when}, {self.way}={_shown(getattr(self, self.way))})"

    def is_active(self, call: Call) -> bool:
        """Whether faults are made at all here; warns where it is not a test that makes them."""
        if is_replaced():
            return True
        if os.environ.get(ENABLED) != "1":
            return False
        now = call.clock.monotonic()
        if now - self._warned_at >= _WARN_SECONDS:
            self._warned_at = now
            logger.warning(
                "policies.chaos_active policy=%s behaviour=%s rate=%g; unset %s to end it",
                call.name,
                self.way,
                self.rate,
                ENABLED,
            )
        return True

    def strikes(self, call: Call) -> bool:
        """Draw for one attempt."""
        if not self.is_active(call) or (self.when is not None and not self.when(*call.args, **call.kwargs)):
            return False
        if self._random.uniform(0.0, 1.0) >= self.rate:
            return False
        if events.listeners:
            events.emit(events.ChaosInjected(call.name, call.key, behaviour=self.way))
        return True

    def around(self, call: Call) -> Callable[..., Any]:
        """Return the call's function with faults in it. Raises TypeError for a generator function, which could not be
        recognised any more."""
        function, is_blocking = call.function, call.is_blocking
        refuse_generators(function)

        async def chaotic(*args: Any, **kwargs: Any) -> Any:
            if not self.strikes(call):
                return await result_of(function, args, kwargs)
            match self.way:
                case "latency_seconds":
                    if is_blocking:
                        call.clock.sleep_blocking(self.latency_seconds or 0.0)
                    else:
                        await call.clock.sleep(self.latency_seconds or 0.0)
                    return await result_of(function, args, kwargs)
                case "unknown":
                    await result_of(function, args, kwargs)
                    raise _lost_answer(call)
                case "hang" if is_blocking:
                    raise PolicyUsageError("Chaos(hang=True) is for async functions: a hung thread could not be ended")
                case "hang":
                    await asyncio.get_running_loop().create_future()
                case "behaviour" if self.behaviour is not None:
                    return await result_of(self.behaviour, args, kwargs)
            return self._instead()

        async def result_of(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            return await await_it(value) if not is_blocking and is_awaitable(value, function) else value

        if not is_blocking:
            return chaotic
        return functools.update_wrapper(lambda *args, **kwargs: run_now(chaotic(*args, **kwargs)), function)

    def _instead(self) -> Any:
        if self.way == "cancel":
            raise asyncio.CancelledError
        if self.fault is not None:
            raise _fresh(self.fault) if isinstance(self.fault, Exception) else self.fault()
        return self.result


def _lost_answer(call: Call) -> AttemptTimeout:
    return AttemptTimeout(policy=call.name, timeout_seconds=call.clock.monotonic() - call.attempt_started_at)


def _fresh(error: Exception) -> Exception:
    """Return a copy: tracebacks, notes and reports of one attempt must not pile up on the next one's error."""
    try:
        made = copy.copy(error)
    except Exception:  # its class takes other arguments than it keeps; then they pile up, and the fault is still made
        return error
    return made if type(made) is type(error) else error


def _is_number(value: object, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= high


def _is_fault(fault: object) -> bool:
    if isinstance(fault, type):
        return issubclass(fault, Exception)
    return isinstance(fault, Exception) or callable(fault)


def _shown(value: object) -> str:
    """Return a value as text that is the same in every process, so that equal declarations look equal."""
    if value is None or isinstance(value, str | int | float | BaseException):
        return repr(value)
    return str(getattr(value, "__qualname__", type(value).__qualname__))
