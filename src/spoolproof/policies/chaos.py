"""Faults on purpose, to see what a service does. A part like any other, around the function itself.

Inert unless the environment says SPOOLPROOF_CHAOS=1 or a test clock is in force: a policy with chaos in it may be
shipped. The same seed gives the same sequence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, ClassVar

from spoolproof.backoff import seeded_random
from spoolproof.clock import is_replaced
from spoolproof.errors import AttemptTimeout, PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call
from spoolproof.policies.part import Part
from spoolproof.policies.timeout import await_it, is_awaitable

ENABLED = "SPOOLPROOF_CHAOS"


class Chaos(Part):
    """Makes a share of attempts go wrong, in exactly one way.

    rate: 0 to 1. seed: of the sequence. when: a predicate on the call's arguments. fault: an exception (or a function
    that makes one) to raise instead of calling. latency_seconds: to wait before calling. result: to return instead of
    calling. behaviour: a function called instead. unknown: do the work, then raise AttemptTimeout: finds missing
    idempotency. hang: never return. cancel: raise CancelledError."""

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
        result: Any = None,
        behaviour: Callable[..., Any] | None = None,
        unknown: bool = False,
        hang: bool = False,
        cancel: bool = False,
    ) -> None:
        ways = {
            "fault": fault is not None,
            "latency_seconds": latency_seconds is not None,
            "result": result is not None,
            "behaviour": behaviour is not None,
            "unknown": unknown,
            "hang": hang,
            "cancel": cancel,
        }
        chosen = [name for name, is_on in ways.items() if is_on]
        faults = []
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            faults.append(f"rate={rate!r}: a number from 0 to 1")
        if len(chosen) != 1:
            faults.append(f"behaviour={chosen}: exactly one of {', '.join(ways)}")
        if latency_seconds is not None and not 0 <= latency_seconds <= 3600:
            faults.append(f"latency_seconds={latency_seconds!r}: a number from 0 to 3,600")
        super().__init__({}, faults)
        self._rate = rate
        self._random = seeded_random(seed)
        self._when = when
        self._fault = fault
        self._latency_seconds = latency_seconds or 0.0
        self._result = result
        self._behaviour = behaviour
        self.way = chosen[0]

    def __repr__(self) -> str:
        return f"Chaos({self.way}, rate={self._rate!r})"

    @staticmethod
    def is_active() -> bool:
        """Whether faults are made at all here."""
        return is_replaced() or os.environ.get(ENABLED) == "1"

    def strikes(self, call: Call) -> bool:
        """Draw for one attempt."""
        if not self.is_active() or (self._when is not None and not self._when(*call.args, **call.kwargs)):
            return False
        if self._random.uniform(0.0, 1.0) >= self._rate:
            return False
        if events.listeners:
            events.emit(events.ChaosInjected(policy=call.name, key=call.key, behaviour=self.way))
        return True

    def around(self, call: Call) -> Callable[..., Any]:
        """Return the call's function with faults in it, for the async driver."""
        function = call.function

        async def chaotic(*args: Any, **kwargs: Any) -> Any:
            if not self.strikes(call):
                return await _result_of(function(*args, **kwargs))
            match self.way:
                case "latency_seconds":
                    await call.clock.sleep(self._latency_seconds)
                    return await _result_of(function(*args, **kwargs))
                case "unknown":
                    await _result_of(function(*args, **kwargs))
                    raise AttemptTimeout(policy=call.name, timeout_seconds=0.0)
                case "hang":
                    await asyncio.get_running_loop().create_future()
                case "behaviour" if self._behaviour is not None:
                    return await _result_of(self._behaviour(*args, **kwargs))
            return self._instead()

        return chaotic

    def around_sync(self, call: Call) -> Callable[..., Any]:
        """Return the call's function with faults in it, for the sync driver."""
        function = call.function

        def chaotic(*args: Any, **kwargs: Any) -> Any:
            if not self.strikes(call):
                return function(*args, **kwargs)
            match self.way:
                case "latency_seconds":
                    call.clock.sleep_blocking(self._latency_seconds)
                    return function(*args, **kwargs)
                case "unknown":
                    function(*args, **kwargs)
                    raise AttemptTimeout(policy=call.name, timeout_seconds=0.0)
                case "hang":
                    raise PolicyUsageError("Chaos(hang=True) is for async functions: a hung thread could not be ended")
                case "behaviour" if self._behaviour is not None:
                    return self._behaviour(*args, **kwargs)
            return self._instead()

        return chaotic

    def _instead(self) -> Any:
        if self.way == "cancel":
            raise asyncio.CancelledError
        if self._fault is not None:
            raise self._fault if isinstance(self._fault, Exception) else self._fault()
        return self._result


async def _result_of(value: Any) -> Any:
    return await await_it(value) if is_awaitable(value) else value
