"""A policy as it is made, called, operated, kept and copied."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypeVar, Unpack, cast

from spoolproof.backoff import RandomSource, system_random
from spoolproof.clock import AMBIENT, Clock
from spoolproof.errors import PolicyConfigError, PolicyUsageError
from spoolproof.ids import random_id
from spoolproof.policies import events
from spoolproof.policies.call import Options
from spoolproof.policies.definition import Definition, Home, default
from spoolproof.policies.functions import is_coroutine_function
from spoolproof.policies.judging.classifier import DEFAULT, Classifier
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.isolation import VERSION, cooldown_left, tell_ignored
from spoolproof.policies.parts.breaker import Breaker
from spoolproof.policies.parts.limits import Adaptive, Bulkhead, Deadline, Retry, Timeout
from spoolproof.policies.parts.part import Part
from spoolproof.policies.parts.ranges import BreakerSettings
from spoolproof.policies.running.caller import Caller, Using
from spoolproof.policies.running.pipeline import Shared
from spoolproof.policies.running.runner import Runner

Need = Literal["critical", "important", "optional"]
Q = TypeVar("Q", bound=Callable[[], Awaitable[object]])


class StandardSettings(BreakerSettings, total=False):
    """What `Policy.standard(…)` takes besides parts: the settings of those it makes, and the arguments of Policy."""

    deadline_seconds: float
    attempts: int
    delay_seconds: float
    delay_factor: float
    delay_seconds_max: float
    retry_after_seconds_max: float
    inline_seconds_max: float
    budget_ratio: float
    budget_per_second_min: float
    running_max: int | Adaptive
    queue_max: int
    wait_seconds_max: float
    timeout_seconds: float
    classify: Classifier
    idempotent: bool | None
    preset: str | None
    sync: Literal["thread", "cooperative"]
    lint_ignore: Iterable[str]
    need: Need | None
    response_seconds: float
    registry: Home | None
    clock: Clock
    random: RandomSource | None


F = TypeVar("F", bound=Callable[..., Any])
STANDARD_ORDER = ("fallback", "deadline", "retry", "hedge", "breaker", "rate_limit", "bulkhead", "timeout")
"""Each attempt is judged by the breaker; a rejected attempt spends no token and no slot; no slot is held in back-off;
the innermost timeout turns a hang into a verdict."""


class Policy(Runner, Caller):
    """Parts around calls to one dependency. First part is outermost.

    name: matches `[a-z0-9][a-z0-9._-]{0,62}`. classify: what errors and results mean. idempotent: whether a call may be
    made again when its effect may have happened; False unless said, or a call brings an idempotency key. preset: a row
    of the presets. sync: `thread` runs sync attempts that have a Timeout in a thread of their own; `cooperative` runs
    them here and only publishes `deadline.remaining()`, as for a Deadline alone. lint_ignore: warnings not to log.
    need: how much a service needs what it protects: critical, important or optional, see docs/dependency-health.md;
    None: it is watched otherwise.
    response_seconds: of the 95th percentile, from which on that is called degraded. registry: the process's unless
    given. Raises PolicyConfigError with every fault."""

    def __init__(
        self,
        name: str,
        *parts: Part,
        classify: Classifier = DEFAULT,
        idempotent: bool | None = None,
        preset: str | None = None,
        sync: Literal["thread", "cooperative"] = "thread",
        lint_ignore: Iterable[str] = (),
        need: Need | None = "important",
        response_seconds: float = 1.0,
        registry: Home | None = None,
        clock: Clock = AMBIENT,
        random: RandomSource | None = None,
    ) -> None:
        definition = Definition(
            name,
            parts,
            classify=classify,
            idempotent=idempotent,
            preset=preset,
            sync=sync,
            lint_ignore=frozenset(lint_ignore),
            clock=clock,
            random=random or system_random(),
            registry=registry or default.registry,
            need=need,
            response_seconds=response_seconds,
        )
        self._set_up(definition.registry.register(definition), None)

    def _set_up(self, definition: Definition, key: str | None) -> None:
        self._runner = self
        self._definition = definition
        self.name = definition.name
        self.key = key
        self.clock = definition.clock
        self.is_idempotent = definition.idempotent is True
        self._chaos = definition.chaos
        self.machines = definition.machines_of(key)

    # --- make --------------------------------------------------------------------------------------------------------

    @classmethod
    def standard(cls, name: str, *parts: Part, **settings: Unpack[StandardSettings]) -> Policy:
        """Return a policy of Deadline, Retry, Breaker, Bulkhead and Timeout in the recommended order.

        parts: take the place of theirs, or add Fallback, Hedge and RateLimit where they belong. settings: any setting
        of any part (`attempts=5`), and the arguments of Policy. Raises PolicyConfigError."""
        if not all(isinstance(part, Part) for part in parts):
            return cls(name, *parts)  # which says what is wrong
        given = {part.kind: part for part in parts}
        left: dict[str, Any] = {**settings}
        own: dict[str, type[Part]] = {
            "deadline": Deadline,
            "retry": Retry,
            "breaker": Breaker,
            "bulkhead": Bulkhead,
            "timeout": Timeout,
        }
        made: list[Part] = []
        faults = [] if len(given) == len(parts) else ["parts: one of each kind"]
        for kind in STANDARD_ORDER:
            if kind in given:
                made.append(given.pop(kind))
            elif kind in own:
                taken = {*own[kind].settings} - {*Adaptive.settings}  # those belong to its own part
                names = [setting for setting in left if setting in taken]
                try:
                    made.append(own[kind](**{setting: left.pop(setting) for setting in names}))
                except PolicyConfigError as error:
                    faults += error.faults
        known = cls.__init__.__kwdefaults__ or {}
        faults += [
            f"{setting}={value!r}: no setting of a part that is made here"
            for setting, value in left.items()
            if setting not in known
        ]
        if faults:
            raise PolicyConfigError(faults, policy=name)
        made += given.values()
        return cls(name, *made, **left)

    @classmethod
    def of_part(cls, part: Part, function: Callable[..., Any]) -> Policy:
        """Return an unregistered policy of one part, named after a function."""
        name = re.sub(r"[^a-z0-9._-]+", "-", getattr(function, "__qualname__", "function").lower()).strip("-._")[:63]
        return cls(name or "function", part, lint_ignore={"W1", "W2", "W3", "W4"}, registry=default.registry.another())

    # --- the forms of a call -----------------------------------------------------------------------------------------

    def using(self, *, idempotency_key: str | None = None, lane: str = "normal", cost: float = 1.0) -> Using:
        """Return this policy with options for the calls made through it.

        idempotency_key: makes a call idempotent; `policies.idempotency_key()` reads it inside, the same on every
        attempt. lane: critical, normal or background. cost: tokens of the rate limit. Raises PolicyUsageError."""
        return Using(self, Options(idempotency_key=idempotency_key, lane=lane, cost=cost))

    def for_key(self, key: str) -> Policy:
        """Return the child for `key` (a host, a tenant): the same policy with a breaker and limits of its own.

        At most `keys_max` children are kept; those that are open, isolated, cooling down or in use always are.
        """
        return cast("Policy", self._definition.child(str(key), self._child))

    def _child(self, key: str) -> Policy:
        child = Policy.__new__(Policy)
        child._set_up(self._definition, key)
        return child

    def check_function(self, function: Callable[..., Any], is_async: bool) -> None:
        """Refuse a function this policy cannot protect. Raises PolicyConfigError."""
        self._definition.check_function(function, is_async)

    @property
    def definition(self) -> Definition:
        """What it was declared to be, and its keys."""
        return self._definition

    @property
    def shared(self) -> Shared:
        """What all its keys have in common."""
        return self._definition.shared

    # --- the breaker -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """closed, open, half_open or isolated; closed without a Breaker."""
        circuit = self.machines.circuit
        return "closed" if circuit is None else circuit.state(self.clock.monotonic())

    @property
    def admitted_share(self) -> float:
        """The share of calls the breaker admits, 0 to 1; below 1 in `closed` while it ramps."""
        circuit = self.machines.circuit
        return 1.0 if circuit is None else circuit.admitted_share(self.clock.monotonic())

    @property
    def open_until_seconds(self) -> float:
        """Seconds until an open breaker probes; 0 when it is not open."""
        now, circuit = self.clock.monotonic(), self.machines.circuit
        return 0.0 if circuit is None or circuit.state(now) not in ("open", "isolated") else circuit.retry_after(now)

    @property
    def probes_max(self) -> int:
        """How many probes half_open admits at a time."""
        return self._definition.values.probes_max

    @property
    def gates(self) -> bool:
        """Whether a breaker here rejects calls: there is one, and its mode is enforce."""
        circuit = self.machines.circuit
        return circuit is not None and circuit.is_moving

    def gating(self) -> None:
        """Prepare to drive a consumer's intake: unless set, the ramp after an outage is 10 s."""
        self._definition.gate()

    def needs_circuit(self, what: str) -> Circuit:
        """Return the breaker. Raises PolicyUsageError without one."""
        if self.machines.circuit is None:
            raise PolicyUsageError(f"policy {self.name!r} has no Breaker to {what}")
        return self.machines.circuit

    def isolate(self, reason: str, *, ttl_seconds: float | None = None) -> Callable[[], None]:
        """Reject every call until the returned function is called or `ttl_seconds` (default 3,600) have passed.

        Several isolations are counted; each ends by itself. reason: 1 to 200 characters. Raises PolicyUsageError
        without a Breaker, PolicyConfigError for a bad argument.
        """
        clock = self.clock
        isolation = self.needs_circuit("isolate").isolate(reason, ttl_seconds, clock.monotonic())
        return lambda: isolation.release(clock.monotonic())

    def reset(self, reason: str) -> None:
        """Close the breaker and forget its counts, rounds and isolations. Raises PolicyUsageError without one."""
        circuit = self.needs_circuit("reset")
        self.machines.last_reset = (random_id(), reason, self.clock.now().timestamp())
        circuit.reset(reason, self.clock.monotonic())

    def probe_now(self, reason: str) -> None:
        """Let an open breaker probe at once, because a health check of the dependency has passed. Else does nothing."""
        circuit = self.machines.circuit
        if circuit is not None:
            circuit.probe_now(reason, self.clock.monotonic())

    def probe(self, function: Q) -> Q:
        """Register an `async def` that raises when the dependency does not answer; a service asks it, for a second at
        most, while calls are too few to tell. Raises PolicyConfigError for another function than there is already."""
        known = self._definition.probe
        if not is_coroutine_function(function) or known not in (None, function):
            what = f"{getattr(known, '__qualname__', known)} is it already" if known else "write `async def`"
            raise PolicyConfigError([f"probe={function!r}: {what}"], policy=self.name)
        self._definition.probe = function
        return function

    def watch(self, callback: Callable[[events.BreakerChanged], None]) -> Callable[[], None]:
        """Call `callback` at each change of the breaker, on whatever thread it happens; returns the unwatch."""
        circuit = self.machines.circuit
        return (lambda: None) if circuit is None else circuit.watch(callback)

    async def wait_admission(self, timeout_seconds: float) -> bool:
        """Return True as soon as the breaker would admit a call, False after `timeout_seconds`. Reserves nothing."""
        circuit = self.machines.circuit
        return circuit is None or await circuit.wait_admission(self.clock, timeout_seconds)

    def snapshot(self) -> dict[str, Any]:
        """Return the state of breaker and cooldown, JSON-ready, in wall time; no counts."""
        now, wall = self.clock.monotonic(), self.clock.now().timestamp()
        data: dict[str, Any] = {"version": VERSION, "saved_at": wall}
        if self.machines.circuit is not None:
            data |= self.machines.circuit.snapshot(now, wall)
        left = self.machines.cooldown.until - now
        data["cooldown_until"] = wall + left if left > 0 else None
        return data

    def restore(self, data: Any) -> None:
        """Take over a snapshot, at most 24 h old. Never raises: what cannot be used is ignored, with RestoreIgnored."""
        now, wall = self.clock.monotonic(), self.clock.now().timestamp()
        try:
            left = cooldown_left(data, wall)
        except (KeyError, TypeError, ValueError) as error:
            tell_ignored(self.name, self.key, error)
            return
        circuit = self.machines.circuit
        if (circuit is None or circuit.restore(data, now, wall)) and left > 0:
            self.machines.cooldown.start(now, left)

    def explain(self) -> str:
        """Return what this policy does, as stable text: a line per part, each setting with its source, then
        findings."""
        return self._definition.explain()

    # --- copy --------------------------------------------------------------------------------------------------------

    def __copy__(self) -> Policy:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Policy:
        return self  # a copy that counts apart would see half of an outage

    def __reduce__(self) -> tuple[Any, ...]:
        if self._definition.registry is not default.registry:
            raise PolicyUsageError(
                f"policy {self.name!r} is of a registry of its own, which another process cannot find; "
                "make it there, or leave out registry="
            )
        return _found, (self.name, self.key)

    def __repr__(self) -> str:
        return f"<Policy {self.name}{'' if self.key is None else f'[{self.key}]'} {self.state}>"


def _found(name: str, key: str | None) -> Policy:
    """Return the policy that was pickled, by its name: what it counts is this process's."""
    try:
        policy: Policy = default.registry.get(name)
    except KeyError:
        raise PolicyUsageError(
            f"policy {name!r} is not made in this process; import the module that makes it before it is unpickled"
        ) from None
    return policy if key is None else policy.for_key(key)


def _protect(part: Part, function: Callable[..., Any]) -> Callable[..., Any]:
    return Policy.of_part(part, function)(function)


Part.protect = staticmethod(_protect)
