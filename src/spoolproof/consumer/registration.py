"""From a function and what is said of it to a handler.

A signature or an option that cannot be served is refused when the handler is registered, with the reason: at a
decorator the author is looking, at a delivery nobody is.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.codec import EVENT_MARK, EventType, event_type_of
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.handler import (
    Argument,
    Dedupe,
    Handler,
    HandlerFunction,
    OnKeyFailure,
    OnUnknown,
    Translate,
    is_session,
)
from spoolproof.consumer.options import HandlerOptions, RunOptions, is_name, option_faults, settled
from spoolproof.consumer.policy_gate import GatingPolicy
from spoolproof.errors import RegistrationError, UnknownType
from spoolproof.outbox.sync_transaction import SyncTransaction
from spoolproof.outbox.transaction import Transaction


def make_handler(
    function: HandlerFunction,
    models: Sequence[type | str],
    *,
    service: str,
    needs_payload: bool = True,
    timeout_max_seconds: float = limits.CONSUMER_TIMEOUT_SECONDS * 2 / 3,
    **given: Unpack[HandlerOptions],
) -> Handler:
    """Check a registration and return its handler. Raises RegistrationError with every fault found in it, TypeError for
    an option that there is not."""
    options = settled(given)
    name = getattr(function, "__qualname__", repr(function))
    if options["queue"] is None and not hasattr(function, "__name__"):
        raise RegistrationError(f"{name} has no name to call its queue by; write a function, or give it queue=")
    own = options["queue"] or f"{service}.{function.__name__}"
    faults: list[str] = []
    gates = _gates(options["gate"], faults)
    types_handled = _wire_names(models, faults)
    keys, translate = _foreign(options["foreign"], models, faults)
    dependencies: dict[str, Any] = {}
    is_batch = options["batch"] is not None
    arguments = _arguments(function, models, faults, dependencies, needs_payload=needs_payload, is_batch=is_batch)
    is_in_transaction = any(argument is Argument.TRANSACTION for _, argument in arguments) or any(
        map(is_session, dependencies.values())
    )
    faults = [
        *option_faults(options, own=own, is_in_transaction=is_in_transaction, timeout_max_seconds=timeout_max_seconds),
        *faults,
    ]
    if faults:
        raise RegistrationError(f"handler {name} cannot be served:\n" + "\n".join(f"  - {fault}" for fault in faults))
    for policy in gates:
        policy.gating()
    is_ordered = options["ordered"]
    per_handler = limits.ORDERED_PREFETCH_PER_CONCURRENCY if is_ordered else limits.PREFETCH_PER_CONCURRENCY
    per_handler *= options["batch"] or 1
    return Handler(
        queue=own,
        function=function,
        arguments=tuple(arguments),
        types=tuple(types_handled),
        models=tuple(models),
        timeout_seconds=float(options["timeout"]),
        concurrency=options["concurrency"],
        prefetch=options["prefetch"] or per_handler * options["concurrency"],
        attempts=options["attempts"],
        delays_seconds=tuple(float(delay) for delay in options["delays"]),
        dedupe=Dedupe(options["dedupe"]),
        gates=gates,
        criticality=options["criticality"],
        on_unknown=None if options["on_unknown"] is None else OnUnknown(options["on_unknown"]),
        is_ordered=is_ordered,
        on_key_failure=OnKeyFailure(options["on_key_failure"]),
        batch=options["batch"],
        batch_seconds=float(options["batch_seconds"]),
        formerly=tuple(options["formerly"]),
        foreign_keys=keys,
        translate=translate,
        message_id=options["message_id"],
        hashes_missing_id=options["missing_id"] == "hash",
        is_sync=not inspect.iscoroutinefunction(function),
        dependencies=dependencies,
    )


def make_run_handler(
    function: HandlerFunction, queue: str | None, *, service: str, **options: Unpack[RunOptions]
) -> Handler:
    """Return the handler of a function without payload, whose messages are called as their queue. Raises as above."""
    wire_name = queue or f"{service}.{getattr(function, '__name__', repr(function))}"
    return make_handler(
        function, (wire_name,), service=service, queue=queue, concurrency=1, needs_payload=False, **options
    )


def _gates(gate: object, faults: list[str]) -> tuple[GatingPolicy, ...]:
    given = gate if isinstance(gate, tuple | list) else (gate,)
    wrong = [one for one in given if not all(hasattr(one, name) for name in ("state", "watch", "gating"))]
    if wrong:
        faults.append(f"gate={gate!r}: a Policy with a Breaker, or several in a tuple")
        return ()
    return tuple(given)


def _wire_names(models: Sequence[type | str], faults: list[str]) -> list[str]:
    if not models:
        faults.append("name at least one event: @service.on(OrderPlaced)")
    names = []
    for model in models:
        if isinstance(model, str):
            names.append(model)
            if not is_name(model, limits.SHORT_TEXT_BYTES_MAX) or set(model.split(".")) & {"*", "#"}:
                faults.append(f"{model!r} is no wire name: 1 to 255 bytes, no spaces, and no * or # as patterns have")
        elif isinstance(model, type):
            try:
                names.append(event_type_of(model).name)
            except UnknownType as error:
                faults.append(str(error))
        else:
            faults.append(f"{model!r} is neither an event class nor a wire name")
    return names


def _foreign(
    given: Any, models: Sequence[type | str], faults: list[str]
) -> tuple[dict[str, EventType], Translate | None]:
    if given is None:
        return {}, None
    if callable(given) and not isinstance(given, type) and not inspect.iscoroutinefunction(given):
        return {}, given
    if not isinstance(given, Mapping):
        faults.append(
            f"foreign={given!r}: a dict from routing key to event, or a plain function from Message to Message"
        )
        return {}, None
    keys: dict[str, EventType] = {}
    for key, model in given.items():
        if not is_name(key, limits.SHORT_TEXT_BYTES_MAX) or set(key.split(".")) & {"*", "#"}:
            faults.append(f"foreign={{{key!r}: …}}: 1 to 255 bytes, no spaces, and no * or # as patterns have")
        elif model not in models:
            faults.append(
                f"foreign={{{key!r}: {_shown(model)}}}: the handler does not take that event; name it in on(…)"
            )
        elif isinstance(model, str) or EVENT_MARK in model.__dict__:
            keys[key] = EventType(model) if isinstance(model, str) else event_type_of(model)
    return keys, None


def _arguments(
    function: HandlerFunction,
    models: Sequence[type | str],
    faults: list[str],
    dependencies: dict[str, Any],
    *,
    needs_payload: bool,
    is_batch: bool,
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
    if is_batch and is_sync:
        faults.append("batch= is for an `async def`")
    expected = {dict if isinstance(model, str) else model for model in models}
    arguments: list[tuple[str, Argument]] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if is_batch and typing.get_origin(hint) is list:
            (hint,) = typing.get_args(hint)
        elif is_batch and {typing.get_origin(kind) or kind for kind in _alternatives(hint)} & expected:
            faults.append(f"parameter {parameter.name!r}: batch= gives it a list[{_shown(hint)}]")
        elif is_batch and hint is Delivery:
            faults.append(f"parameter {parameter.name!r}: a batch has many deliveries, and no Delivery")
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
