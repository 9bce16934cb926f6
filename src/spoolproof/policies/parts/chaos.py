"""Faults on purpose, to see what a service does. A part like any other, around the function itself.

Inert unless the environment says SPOOLPROOF_CHAOS=1 or a test clock is in force: a policy with chaos in it may be
shipped. Where the environment switched it on, a warning a minute says so. The same seed gives the same sequence."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import os
from collections.abc import Callable
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

    def __init__(
        self,
        rate: float = 0.0,
        *,
        seed: int = 0,
        when: Callable[..., bool] | None = None,
        fault: Exception | Callable[[], Exception] | None = None,
        latency_seconds: float | None = None,
        result: Any = _NO_RESULT,
        behaviour: Callable[..., Any] | None = None,
        unknown: bool = False,
        hang: bool = False,
        cancel: bool = False,
    ) -> None:
        ways = {
            "fault": fault is not None,
            "latency_seconds": latency_seconds is not None,
            "result": result is not _NO_RESULT,
            "behaviour": behaviour is not None,
            "unknown": unknown,
            "hang": hang,
            "cancel": cancel,
        }
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        faults = []
        if not _is_number(rate, 1):
            faults.append(f"rate={rate!r}: a number from 0 to 1")
        if isinstance(seed, bool) or not isinstance(seed, int):
            faults.append(f"seed={seed!r}: a whole number")
        if len(chosen) != 1:
            faults.append(f"behaviour={chosen}: exactly one of {', '.join(ways)}")
        if latency_seconds is not None and not _is_number(latency_seconds, 3600):
            faults.append(f"latency_seconds={latency_seconds!r}: a number from 0 to 3,600")
        if fault is not None and not _is_fault(fault):
            faults.append(f"fault={fault!r}: an Exception, or a class or function that makes one; see cancel=True")
        for name, function in (("when", when), ("behaviour", behaviour)):
            if function is not None and not callable(function):
                faults.append(f"{name}={function!r}: a function")
        super().__init__({}, faults)
        self.way = chosen[0]
        self.declared = (rate, seed, when, fault, latency_seconds, result, behaviour)
        self._rate = rate
        self._seed = seed
        self._random = seeded_random(seed)
        self._when = when
        self._fault = fault
        self._latency_seconds = latency_seconds or 0.0
        self._result = result
        self._behaviour = behaviour
        values = {"fault": fault, "latency_seconds": latency_seconds, "result": result, "behaviour": behaviour}
        self._shown = _shown(values.get(self.way, True))
        self._warned_at = float("-inf")

    def __repr__(self) -> str:
        when = "" if self._when is None else f", when={_shown(self._when)}"
        return f"Chaos({self._rate!r}, seed={self._seed}{when}, {self.way}={self._shown})"

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
                self._rate,
                ENABLED,
            )
        return True

    def strikes(self, call: Call) -> bool:
        """Draw for one attempt."""
        if not self.is_active(call) or (self._when is not None and not self._when(*call.args, **call.kwargs)):
            return False
        if self._random.uniform(0.0, 1.0) >= self._rate:
            return False
        if events.listeners:
            events.emit(events.ChaosInjected(policy=call.name, key=call.key, behaviour=self.way))
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
                        call.clock.sleep_blocking(self._latency_seconds)
                    else:
                        await call.clock.sleep(self._latency_seconds)
                    return await result_of(function, args, kwargs)
                case "unknown":
                    await result_of(function, args, kwargs)
                    raise _lost_answer(call)
                case "hang" if is_blocking:
                    raise PolicyUsageError("Chaos(hang=True) is for async functions: a hung thread could not be ended")
                case "hang":
                    await asyncio.get_running_loop().create_future()
                case "behaviour" if self._behaviour is not None:
                    return await result_of(self._behaviour, args, kwargs)
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
        if self._fault is not None:
            raise _fresh(self._fault) if isinstance(self._fault, Exception) else self._fault()
        return self._result


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
