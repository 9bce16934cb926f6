"""A job as it is declared: a function of one item, and everything of its own that keeps it from the other jobs.

That is a queue, a policy `job.<name>` with breaker, bulkhead and timeout, and, for a plain function, threads. So a job
whose every item hangs holds its own slots and threads, and nobody else's.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.codec import decoder_for, event, is_model
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.handler import Argument, Handler
from spoolproof.consumer.ledger import Ledger
from spoolproof.consumer.registration import make_handler
from spoolproof.errors import PolicyConfigError, RegistrationError
from spoolproof.ids import derived_id
from spoolproof.outbox.sync_transaction import SyncTransaction
from spoolproof.outbox.transaction import Transaction
from spoolproof.outcome import Ack, DeadLetter, Defer, Park, RetryLater
from spoolproof.policies import Breaker, Bulkhead, Classifier, Kind, Policy, Timeout
from spoolproof.policies.judging.classifier import DEFAULT

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,57}")
_SLACK_SECONDS = 5.0  #: a policy's limit is to be hit before the handler's, which knows less


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What a job may know of its run; ask for it with a parameter annotated `JobContext`.

    key: the same in every attempt of this item, for calls to systems that deduplicate. attempt: 1 on the first.
    deadline: when the attempt is cut off.
    """

    key: str
    attempt: int
    deadline: datetime
    batch_id: str
    item_id: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of an item's message."""

    batch: str
    n: int
    id: str
    item: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. handler: takes its messages. inner: calls the function with an item, a JobContext and a transaction."""

    name: str
    model: type
    validate: Callable[[Any], Iterable[Any] | None] | None
    item_id: Callable[[Any], str] | None
    effect: str
    attempts: int
    timeout_seconds: float
    concurrency: int
    policy: Policy
    handler: Handler
    inner: Handler
    decode: Callable[[bytes], object]

    @property
    def wants_transaction(self) -> bool:
        """Whether the function takes one."""
        return self.inner.wants_transaction


class Jobs:
    """The jobs of a service."""

    def __init__(self) -> None:
        self.by_name: dict[str, Job] = {}


def queue_of(service: str, job: str) -> str:
    """Return the queue of a job, which is also the wire name of its messages."""
    return f"{service}.job.{job}"


def key_of(batch_id: str, item_id: str) -> str:
    """Return the idempotency key of an item, which is also its message's id."""
    return derived_id("batch item", batch_id, item_id)


def _is_bug(error: BaseException) -> bool:
    return DEFAULT.of_error(error).kind is Kind.BUG


_SAID = Classifier().permanent(DeadLetter, Park, Ack).local(Defer, RetryLater)
_ONCE = _SAID.bug(_is_bug)  # nobody knows how far it came


def make_job(
    name: str,
    function: Callable[..., object],
    run: Callable[[Job, Envelope, Delivery, Transaction | None], Any],
    ledger: Ledger,
    *,
    service: str,
    policies: Any,
    timeout: float = limits.JOB_SECONDS,
    concurrency: int = limits.JOB_CONCURRENCY,
    attempts: int = limits.JOB_ATTEMPTS,
    effect: str = "keyed",
    validate: Callable[[Any], Iterable[Any] | None] | None = None,
    item_id: Callable[[Any], str] | None = None,
) -> Job:
    """Check a declaration and return the job. run: makes one attempt for its message. Raises RegistrationError with
    every fault."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(f"job {name!r}: 1 to 58 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")
    faults = _option_faults(timeout, concurrency, effect, {"validate": validate, "item_id": item_id})
    arguments, model = _arguments(function, faults)
    takes_transaction = any(kind is Argument.TRANSACTION for _, kind in arguments)
    if takes_transaction and effect == "once":
        faults.append("effect='once' with a Transaction: what its end rolls back has not happened; drop one of them")
    if faults:
        told = "\n".join(f"  - {fault}" for fault in faults)
        raise RegistrationError(f"job {name!r} cannot be served:\n{told}")
    envelope: type[Envelope] = event(queue_of(service, name))(type("Envelope", (Envelope,), {}))
    entry = _entry(function, envelope, lambda *given: run(job, *given), takes_transaction=takes_transaction)
    try:
        policy = Policy(
            f"job.{name}",
            *(Breaker(), Bulkhead(concurrency), Timeout(timeout)),
            classify=_ONCE if effect == "once" else _SAID,
            idempotent=effect != "once",
            need="optional",  # what fails is one job type; the service does all else
            registry=policies,
        )
    except PolicyConfigError as error:
        raise RegistrationError(f"job {name!r}: {error}") from error
    handler = make_handler(
        entry,
        (envelope,),
        service=service,
        queue=queue_of(service, name),
        timeout=2 * timeout + _SLACK_SECONDS,  # a plain function may wait for a thread first
        concurrency=concurrency,
        attempts=attempts,
        gate=policy,
        on_unknown="park" if effect == "once" else None,
    )
    is_sync = not inspect.iscoroutinefunction(function)
    inner = replace(handler, function=function, arguments=tuple(arguments), is_sync=is_sync, dependencies={})
    job = Job(
        name=name,
        model=model,
        validate=validate,
        item_id=item_id,
        effect=effect,
        attempts=attempts,
        timeout_seconds=float(timeout),
        concurrency=concurrency,
        policy=policy,
        handler=handler,
        inner=inner,
        decode=decoder_for(model),
    )
    return replace(job, handler=replace(handler, ledger=ledger))


def _option_faults(timeout: Any, concurrency: Any, effect: str, functions: dict[str, Any]) -> list[str]:
    faults = [] if effect in ("keyed", "once") else [f"effect={effect!r}: 'keyed' or 'once'"]
    most = limits.CONSUMER_TIMEOUT_SECONDS / 3 - _SLACK_SECONDS
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout <= most:
        faults.append(f"timeout={timeout!r}: above 0 and at most {most:g} s")
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or not 1 <= concurrency <= 1000:
        faults.append(f"concurrency={concurrency!r}: a whole number from 1 to 1000")
    for option, given in functions.items():
        if given is not None and (not callable(given) or inspect.iscoroutinefunction(given)):
            faults.append(f"{option}={given!r}: a plain function of one item")
    return faults


def _entry(
    function: Callable[..., object], envelope: type[Envelope], run: Callable[..., Any], *, takes_transaction: bool
) -> Callable[..., object]:
    """Return the handler of a job's messages, which goes by the name of the function."""

    async def handle_in(given: Any, delivery: Delivery, tx: Transaction) -> object:
        return await run(given, delivery, tx)

    async def handle(given: Any, delivery: Delivery) -> object:
        return await run(given, delivery, None)

    entry: Any = handle_in if takes_transaction else handle
    entry.__annotations__["given"] = envelope
    for attribute in ("__module__", "__qualname__", "__name__"):
        setattr(entry, attribute, getattr(function, attribute))
    made: Callable[..., object] = entry
    return made


def _arguments(function: Any, faults: list[str]) -> tuple[list[tuple[str, Argument]], type]:
    """Return what each parameter is given, and the model of the items."""
    arguments: list[tuple[str, Argument]] = []
    model: Any = None
    try:
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters
    except Exception as error:  # an annotation may name anything
        faults.append(f"its signature cannot be read: {error}")
        return [], dict
    is_sync = not inspect.iscoroutinefunction(function)
    for name in parameters:
        hint = hints.get(name)
        if hint is JobContext:
            arguments.append((name, Argument.DELIVERY))
        elif hint in (Transaction, SyncTransaction):
            arguments.append((name, Argument.TRANSACTION))
            if is_sync is not (hint is SyncTransaction):
                faults.append(f"parameter {name!r}: an `async def` takes Transaction, a plain function SyncTransaction")
        else:
            found = typing.get_origin(hint) or hint
            if model is not None or not (is_model(found) or found is dict):
                faults.append(
                    f"parameter {name!r}: one is the item, a msgspec.Struct, dataclass, pydantic model or dict; others "
                    "are JobContext and Transaction"
                )
            arguments.append((name, Argument.PAYLOAD))
            model = found
    if model is None and not faults:
        faults.append("no parameter takes the item")
    return arguments, model
