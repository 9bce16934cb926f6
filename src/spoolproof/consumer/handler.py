"""A registered handler, and the reading of its signature.

A signature that cannot be served is refused when the handler is registered, with the reason: at a decorator the
author is looking, at a delivery nobody is.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypedDict

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.codec import EVENT_MARK, event_type_of
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.policy_gate import GatingPolicy
from spoolproof.errors import InvalidMessage, RegistrationError, UnknownType
from spoolproof.message import check_short_text
from spoolproof.outbox.sync_transaction import SyncTransaction
from spoolproof.outbox.transaction import Transaction

HandlerFunction = Callable[..., object]
_NOTHING: Mapping[str, object] = {}


class Dedupe(StrEnum):
    """inbox: the effects of a message happen once. none: at least once, no inbox row, no transaction."""

    INBOX = "inbox"
    NONE = "none"


class OnUnknown(StrEnum):
    """What follows when the process that ran the message ended before the outcome was known. retry: it runs again under
    the same idempotency key. park: a person decides."""

    RETRY = "retry"
    PARK = "park"


class OnKeyFailure(StrEnum):
    """What becomes of later messages of an ordering key when one is given up. skip: they go on. hold_key: they wait
    until that one was replayed with success, or discarded."""

    SKIP = "skip"
    HOLD_KEY = "hold_key"


class Argument(StrEnum):
    """What one parameter of a handler is given."""

    PAYLOAD = "payload"
    DELIVERY = "delivery"
    TRANSACTION = "transaction"
    DEPENDENCY = "dependency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler and how it is run. types: wire names. All times in seconds."""

    queue: str
    function: HandlerFunction
    arguments: tuple[tuple[str, Argument], ...]
    types: tuple[str, ...]
    models: tuple[type | str, ...]
    timeout_seconds: float
    concurrency: int
    prefetch: int
    attempts: int
    delays_seconds: tuple[float, ...]
    dedupe: Dedupe
    gates: tuple[GatingPolicy, ...] = ()
    on_unknown: OnUnknown | None = None  #: None: runs are not claimed
    is_ordered: bool = False
    on_key_failure: OnKeyFailure = OnKeyFailure.SKIP
    formerly: tuple[str, ...] = ()  #: queues it had before: what is still in them is its own
    is_sync: bool = False  #: a plain function, which runs in a thread
    dependencies: Mapping[str, Any] = field(default_factory=dict)  #: parameter → type that a provider gives

    @property
    def name(self) -> str:
        """Module and function, as people look for it."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def wants_transaction(self) -> bool:
        """Whether the handler takes the transaction its inbox row is in."""
        return any(argument is Argument.TRANSACTION for _, argument in self.arguments) or any(
            is_session(kind) for kind in self.dependencies.values()
        )

    @property
    def wants_delivery(self) -> bool:
        """Whether the handler takes a Delivery; for the others none need be made."""
        return any(argument is Argument.DELIVERY for _, argument in self.arguments)

    def call(
        self,
        payload: object,
        delivery: Delivery | None,
        tx: Transaction | SyncTransaction | None,
        others: Mapping[str, object] = _NOTHING,
    ) -> Coroutine[Any, Any, object]:
        """Call the user's function with what it asks for; returns its coroutine, or the result of a plain one."""
        given: dict[Argument, object] = {
            Argument.PAYLOAD: payload,
            Argument.DELIVERY: delivery,
            Argument.TRANSACTION: tx,
        }
        called: Any = self.function
        made: Coroutine[Any, Any, object] = called(
            **{name: given[argument] for name, argument in self.arguments}, **others
        )
        return made


def is_session(kind: object) -> bool:
    """Tell whether a type is SQLAlchemy's AsyncSession, or made from it."""
    return any(
        (base.__module__.partition(".")[0], base.__name__) == ("sqlalchemy", "AsyncSession")
        for base in getattr(kind, "__mro__", ())
    )


def make_handler(
    function: HandlerFunction,
    models: Sequence[type | str],
    *,
    service: str,
    queue: str | None = None,
    timeout: float = limits.HANDLER_SECONDS,
    concurrency: int = limits.CONCURRENCY,
    prefetch: int | None = None,
    attempts: int | None = None,
    delays: Sequence[float] | None = None,
    dedupe: str = Dedupe.INBOX,
    gate: object = (),
    on_unknown: str | None = None,
    ordered: bool = False,
    on_key_failure: str = OnKeyFailure.SKIP,
    formerly: Sequence[str] = (),
    needs_payload: bool = True,
    timeout_max_seconds: float = limits.CONSUMER_TIMEOUT_SECONDS * 2 / 3,
) -> Handler:
    """Check a registration and return its handler. Raises RegistrationError with every fault found in it."""
    name = getattr(function, "__qualname__", repr(function))
    if queue is None and not hasattr(function, "__name__"):
        raise RegistrationError(f"{name} has no name to call its queue by; write a function, or give it queue=")
    if attempts is None:
        attempts = limits.ORDERED_ATTEMPTS if ordered else limits.ATTEMPTS
    if delays is None:
        delays = limits.ORDERED_DELAYS_SECONDS if ordered else limits.DELAYS_SECONDS
    faults = _option_faults(
        timeout=timeout,
        timeout_max_seconds=timeout_max_seconds,
        concurrency=concurrency,
        prefetch=prefetch,
        attempts=attempts,
        delays=delays,
        dedupe=dedupe,
        queue=queue,
    )
    faults += _order_faults(ordered, on_key_failure, dedupe)
    gates = _gates(gate, faults)
    types_handled = _wire_names(models, faults)
    dependencies: dict[str, Any] = {}
    arguments = _arguments(function, models, faults, dependencies, needs_payload=needs_payload)
    is_in_transaction = any(argument is Argument.TRANSACTION for _, argument in arguments) or any(
        map(is_session, dependencies.values())
    )
    own = queue or f"{service}.{getattr(function, '__name__', '')}"
    if isinstance(formerly, str) or not all(_is_name(one, 200) and one != own for one in formerly):
        faults.append(f"formerly={formerly!r}: a list of other queues' names, each 1 to 200 bytes without spaces")
    if formerly and ordered:
        faults.append("formerly= with ordered=True: two queues have no order between them; let the old one run empty")
    faults += _record_faults(dedupe, on_unknown, is_in_transaction=is_in_transaction)
    if faults:
        raise RegistrationError(f"handler {name} cannot be served:\n" + "\n".join(f"  - {fault}" for fault in faults))
    for policy in gates:
        policy.gating()
    per_handler = limits.ORDERED_PREFETCH_PER_CONCURRENCY if ordered else limits.PREFETCH_PER_CONCURRENCY
    return Handler(
        queue=own,
        function=function,
        arguments=tuple(arguments),
        types=tuple(types_handled),
        models=tuple(models),
        timeout_seconds=float(timeout),
        concurrency=concurrency,
        prefetch=prefetch or per_handler * concurrency,
        attempts=attempts,
        delays_seconds=tuple(float(delay) for delay in delays),
        dedupe=Dedupe(dedupe),
        gates=gates,
        on_unknown=None if on_unknown is None else OnUnknown(on_unknown),
        is_ordered=ordered,
        on_key_failure=OnKeyFailure(on_key_failure),
        formerly=tuple(formerly),
        is_sync=not inspect.iscoroutinefunction(function),
        dependencies=dependencies,
    )


class RunOptions(TypedDict, total=False):
    """What may be said of a function that runs by the clock, as for any handler."""

    timeout: float
    attempts: int
    delays: Sequence[float]
    on_unknown: str | None


def make_run_handler(
    function: HandlerFunction,
    queue: str | None,
    *,
    service: str,
    timeout: float = limits.HANDLER_SECONDS,
    attempts: int = limits.ATTEMPTS,
    delays: Sequence[float] = limits.DELAYS_SECONDS,
    on_unknown: str | None = None,
) -> Handler:
    """Return the handler of a function without payload, whose messages are called as their queue. Raises as above."""
    return make_handler(
        function,
        (queue or f"{service}.{getattr(function, '__name__', repr(function))}",),
        service=service,
        queue=queue,
        timeout=timeout,
        concurrency=1,
        prefetch=None,
        attempts=attempts,
        delays=delays,
        dedupe=Dedupe.INBOX,
        on_unknown=on_unknown,
        needs_payload=False,
    )


def _option_faults(
    *,
    timeout: float,
    timeout_max_seconds: float,
    concurrency: int,
    prefetch: int | None,
    attempts: int,
    delays: Sequence[float],
    dedupe: str,
    queue: str | None,
) -> list[str]:
    faults = []
    if not _is_number(timeout) or not 0 < timeout <= timeout_max_seconds:
        faults.append(
            f"timeout={timeout!r}: above 0 and at most {timeout_max_seconds:g} s (two thirds of the broker's own limit)"
        )
    for name, value, most in (
        ("concurrency", concurrency, 1000),
        ("prefetch", prefetch, 10_000),
        ("attempts", attempts, 100),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most):
            faults.append(f"{name}={value!r}: a whole number from 1 to {most}")
    if not isinstance(delays, list | tuple) or not delays or not all(_is_delay(delay) for delay in delays):
        faults.append(f"delays={delays!r}: one or more numbers of seconds from 0 to {limits.TIERS_SECONDS[-1]}")
    if dedupe not in list(Dedupe):
        faults.append(f"dedupe={dedupe!r}: 'inbox' or 'none'")
    if queue is not None and not _is_name(queue, 200):
        faults.append(f"queue={queue!r}: 1 to 200 bytes without spaces")
    return faults


def _order_faults(ordered: object, on_key_failure: object, dedupe: str) -> list[str]:
    faults = []
    if not isinstance(ordered, bool):
        faults.append(f"ordered={ordered!r}: True or False")
    if on_key_failure not in list(OnKeyFailure):
        faults.append(f"on_key_failure={on_key_failure!r}: 'skip' or 'hold_key'")
    elif on_key_failure == OnKeyFailure.HOLD_KEY and ordered:
        faults.append("on_key_failure='hold_key' is not available yet")
    elif on_key_failure == OnKeyFailure.HOLD_KEY:
        faults.append("on_key_failure='hold_key' holds an ordering key, which needs ordered=True")
    if ordered and dedupe == Dedupe.NONE:
        faults.append(
            "ordered=True needs the inbox: a redelivery would run again after younger ones; drop dedupe='none'"
        )
    return faults


def _record_faults(dedupe: str, on_unknown: str | None, *, is_in_transaction: bool) -> list[str]:
    faults = []
    if dedupe == Dedupe.NONE and is_in_transaction:
        faults.append("dedupe='none' opens no transaction; drop the Transaction parameter or the option")
    if on_unknown is not None and on_unknown not in list(OnUnknown):
        faults.append(f"on_unknown={on_unknown!r}: 'retry' or 'park'")
    elif on_unknown is not None and (is_in_transaction or dedupe == Dedupe.NONE):
        reason = (
            "dedupe='none' keeps no record" if dedupe == Dedupe.NONE else "a transaction that ends early rolls back"
        )
        faults.append(f"on_unknown={on_unknown!r} is for handlers that call the world, without Transaction: {reason}")
    return faults


def _gates(gate: object, faults: list[str]) -> tuple[GatingPolicy, ...]:
    given = gate if isinstance(gate, tuple | list) else (gate,)
    wrong = [one for one in given if not all(hasattr(one, name) for name in ("state", "watch", "gating"))]
    if wrong:
        faults.append(f"gate={gate!r}: a Policy with a Breaker, or several in a tuple")
        return ()
    return tuple(given)


def _is_delay(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= limits.TIERS_SECONDS[-1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_name(value: object, bytes_max: int) -> bool:
    try:
        check_short_text("name", value)
    except InvalidMessage:
        return False
    text = str(value)
    return 0 < len(text.encode()) <= bytes_max and text.isprintable() and " " not in text


def _wire_names(models: Sequence[type | str], faults: list[str]) -> list[str]:
    if not models:
        faults.append("name at least one event: @service.on(OrderPlaced)")
    names = []
    for model in models:
        if isinstance(model, str):
            names.append(model)
            if not _is_name(model, limits.SHORT_TEXT_BYTES_MAX) or set(model.split(".")) & {"*", "#"}:
                faults.append(f"{model!r} is no wire name: 1 to 255 bytes, no spaces, and no * or # as patterns have")
        elif isinstance(model, type):
            try:
                names.append(event_type_of(model).name)
            except UnknownType as error:
                faults.append(str(error))
        else:
            faults.append(f"{model!r} is neither an event class nor a wire name")
    return names


def _arguments(
    function: HandlerFunction,
    models: Sequence[type | str],
    faults: list[str],
    dependencies: dict[str, Any],
    *,
    needs_payload: bool,
) -> list[tuple[str, Argument]]:
    is_sync = not inspect.iscoroutinefunction(function)
    if is_sync and (fault := _sync_fault(function)):
        faults.append(fault)
        return []
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # an annotation may name anything; whatever evaluating it raises is the reason to show
        faults.append(f"its annotations cannot be read: {error_line(error)}")
        return []
    expected = {dict if isinstance(model, str) else model for model in models}
    arguments: list[tuple[str, Argument]] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        argument = _argument_of(parameter, hint, expected, faults, is_sync=is_sync)
        if argument is Argument.DEPENDENCY:
            dependencies[parameter.name] = hint
        elif argument is not None:
            arguments.append((parameter.name, argument))
    given = [argument for _, argument in arguments]
    for argument in Argument:
        if given.count(argument) > 1:
            faults.append(f"it has {given.count(argument)} parameters for the {argument}; one is enough")
    if needs_payload and Argument.PAYLOAD not in given and not faults:
        faults.append(
            f"no parameter takes the payload; annotate one as {' | '.join(_shown(model) for model in models)}"
        )
    return arguments


def _sync_fault(function: Any) -> str | None:
    """Return why what is no coroutine function is no plain one either, or None."""
    inner = inspect.unwrap(function)
    called = type(function).__call__ if not inspect.isroutine(function) else inner
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        return "it is a generator function, which runs only when somebody asks it for items"
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(called):
        return "what is around its `async def` hides that; make the decorator's function `async def`, too"
    return None if callable(function) and not isinstance(function, type) else "it is not a function"


def _argument_of(
    parameter: inspect.Parameter, hint: Any, expected: set[type], faults: list[str], *, is_sync: bool
) -> Argument | None:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        faults.append(f"parameter {name!r}: *args, **kwargs and positional-only parameters cannot be filled")
    elif hint is Delivery:
        return Argument.DELIVERY
    elif hint in (Transaction, SyncTransaction):
        if is_sync is not (hint is SyncTransaction):
            right = "a plain function takes SyncTransaction" if is_sync else "an `async def` takes Transaction"
            faults.append(f"parameter {name!r}: {right}")
        return Argument.TRANSACTION
    elif hint is None:
        if parameter.default is parameter.empty:
            faults.append(f"parameter {name!r} has no annotation; annotate it with the event, Delivery or Transaction")
    else:
        accepted = {typing.get_origin(kind) or kind for kind in _alternatives(hint)}
        if accepted == expected:
            return Argument.PAYLOAD
        if accepted & expected:
            missing = ", ".join(sorted(_shown(kind) for kind in expected - accepted))
            surplus = ", ".join(sorted(_shown(kind) for kind in accepted - expected))
            detail = " and ".join(
                filter(None, (missing and f"does not take {missing}", surplus and f"names {surplus}"))
            )
            faults.append(f"parameter {name!r} {detail}; it must accept exactly what the handler is registered for")
        elif parameter.default is parameter.empty:
            if isinstance(hint, type) and hint.__module__ != "builtins" and not hasattr(hint, EVENT_MARK):
                return Argument.DEPENDENCY  # whether anything gives it is known when the service starts
            faults.append(
                f"parameter {name!r}: {_shown(hint)} is neither the event, Delivery nor Transaction, and no class that "
                "@service.provides could give"
            )
    return None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _shown(kind: object) -> str:
    return kind.__qualname__ if isinstance(kind, type) else str(kind)
