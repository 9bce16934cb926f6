"""What may be said of a handler: one list for whoever registers one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from spoolproof import limits
from spoolproof.consumer.handler import Dedupe, OnKeyFailure, OnUnknown
from spoolproof.consumer.policy_gate import GatingPolicy
from spoolproof.degradation.levels import CRITICALITIES
from spoolproof.errors import InvalidMessage
from spoolproof.message import Message, check_short_text


class HandlerOptions(TypedDict, total=False):
    """The keyword arguments of `Service.on`; wrap it with `**options: Unpack[HandlerOptions]`."""

    queue: str | None
    """Default `<service>.<function>`."""
    timeout: float
    """Seconds an attempt may take. Default 30."""
    concurrency: int
    """Handlers at once in this process. Default 10."""
    prefetch: int | None
    """Unacked deliveries. Default 2 × concurrency, 10 × concurrency when ordered."""
    attempts: int | None
    """Before the dead letter. Default 8, 7 when ordered."""
    delays: Sequence[float] | None
    """Seconds before attempts 3, 4, … (2, 3, … when ordered), rounded up to 1, 5, 15, 60, 300, 900, 3600 or 21600; the
    last repeats."""
    dedupe: Literal["inbox", "none"] | str
    """`inbox`, the default, or `none`: at least once, without a transaction."""
    gate: GatingPolicy | Sequence[GatingPolicy]
    """A policy that every message of the queue needs, or several: while its breaker is open the queue is left alone,
    uncounted."""
    on_unknown: Literal["retry", "park"] | str | None
    """For handlers without a `Transaction`: claims each run, so that no two processes run a message at once, and says
    what follows when one ended in it: `retry` under the same idempotency key, or `park` as a dead letter for a
    person."""
    ordered: bool
    """Messages of one ordering key run one after the other, in the order they were published, in one process at a time;
    a failed one is tried again in its place."""
    on_key_failure: Literal["skip", "hold_key"] | str
    """When an ordered message was given up, its key goes on (`skip`, the default), or waits until it was replayed with
    success or discarded."""
    batch: int | None
    """The handler takes a list of up to so many messages, 2 to 1000, and runs once for all of them in one transaction;
    if that fails, each runs by itself."""
    batch_seconds: float
    """How long the first message of a batch waits for others. Default 0.2."""
    formerly: Sequence[str]
    """Queues this handler had before it was renamed, the oldest first: what is in them is handled as if it were in this
    one, and nothing more comes into them."""
    foreign: Mapping[str, type | str] | Callable[[Message], Message]
    """For publishers that know nothing of Spoolproof: `{"routing.key": Event}`, which also binds the queue to the key,
    or a function that makes a `Message` of the queue's types of any other."""
    message_id: Callable[[Any], object]
    """A function from the payload to an id, so that what others publish twice has its effects once: for messages that
    come without an id or without a type; an id made for each publish, as several libraries do, says nothing."""
    criticality: Literal["critical_plus", "critical", "sheddable_plus", "sheddable"] | str
    """At which level the queue is left alone, uncounted: `sheddable` from 1, `sheddable_plus` from 2, `critical` at 3;
    `critical_plus`, and a handler that does not say, never."""
    missing_id: Literal["hash"] | str
    """`hash`: a message that arrives without an id is known by its body; two equal ones are then one."""


class RunOptions(TypedDict, total=False):
    """What may be said of a function that runs by the clock, as for any handler."""

    timeout: float
    attempts: int
    delays: Sequence[float]
    on_unknown: str | None
    criticality: str


def settled(given: HandlerOptions) -> dict[str, Any]:
    """Return every option, those that were left out as they are by default. Raises TypeError for what is none."""
    unknown = sorted(given.keys() - HandlerOptions.__optional_keys__)
    if unknown:
        known = ", ".join(sorted(HandlerOptions.__optional_keys__))
        raise TypeError(f"on() got an unexpected keyword argument {unknown[0]!r}; there are {known}")
    is_ordered = bool(given.get("ordered"))
    defaults: dict[str, Any] = {
        "queue": None,
        "timeout": limits.HANDLER_SECONDS,
        "concurrency": limits.CONCURRENCY,
        "prefetch": None,
        "attempts": limits.ORDERED_ATTEMPTS if is_ordered else limits.ATTEMPTS,
        "delays": limits.ORDERED_DELAYS_SECONDS if is_ordered else limits.DELAYS_SECONDS,
        "dedupe": Dedupe.INBOX,
        "gate": (),
        "criticality": "critical_plus",
        "on_unknown": None,
        "ordered": False,
        "on_key_failure": OnKeyFailure.SKIP,
        "batch": None,
        "batch_seconds": limits.BATCH_SECONDS,
        "formerly": (),
        "foreign": None,
        "message_id": None,
        "missing_id": None,
    }
    return {**defaults, **{name: value for name, value in given.items() if value is not None}}


def option_faults(
    options: dict[str, Any], *, own: str, is_in_transaction: bool, timeout_max_seconds: float
) -> list[str]:
    """Return what is wrong with the options of a handler. own: its queue."""
    timeout, delays, formerly = options["timeout"], options["delays"], options["formerly"]
    faults = []
    if not _is_number(timeout) or not 0 < timeout <= timeout_max_seconds:
        faults.append(
            f"timeout={timeout!r}: above 0 and at most {timeout_max_seconds:g} s (two thirds of the broker's own limit)"
        )
    for name, most in (("concurrency", 1000), ("prefetch", 10_000), ("attempts", 100)):
        value = options[name]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most):
            faults.append(f"{name}={value!r}: a whole number from 1 to {most}")
    if not isinstance(delays, list | tuple) or not delays or not all(_is_delay(delay) for delay in delays):
        faults.append(f"delays={delays!r}: one or more numbers of seconds from 0 to {limits.TIERS_SECONDS[-1]}")
    if options["queue"] is not None and not is_name(options["queue"], 200):
        faults.append(f"queue={options['queue']!r}: 1 to 200 bytes without spaces")
    if isinstance(formerly, str) or not all(is_name(one, 200) and one != own for one in formerly):
        faults.append(f"formerly={formerly!r}: a list of other queues' names, each 1 to 200 bytes without spaces")
    if options["criticality"] not in CRITICALITIES:
        faults.append(f"criticality={options['criticality']!r}: {', '.join(CRITICALITIES)}")
    faults += _batch_faults(options, is_in_transaction=is_in_transaction)
    message_id, missing_id = options["message_id"], options["missing_id"]
    if message_id is not None and (not callable(message_id) or inspect.iscoroutinefunction(message_id)):
        faults.append(f"message_id={message_id!r}: a plain function from the payload to its id")
    if missing_id not in (None, "hash"):
        faults.append(f"missing_id={missing_id!r}: 'hash', or leave it out: such a message runs at least once")
    return [*faults, *_order_faults(options), *_record_faults(options, is_in_transaction=is_in_transaction)]


def _batch_faults(options: dict[str, Any], *, is_in_transaction: bool) -> list[str]:
    batch, seconds = options["batch"], options["batch_seconds"]
    if batch is None:
        return []
    faults = []
    if not isinstance(batch, int) or isinstance(batch, bool) or not 2 <= batch <= 1000:
        faults.append(f"batch={batch!r}: a whole number from 2 to 1000")
    if not _is_number(seconds) or not 0 <= seconds <= 60:
        faults.append(f"batch_seconds={seconds!r}: a number of seconds from 0 to 60")
    if options["ordered"] or options["gate"] != ():
        faults.append("batch= runs many messages at once, ordered= and gate= decide about each: drop one of them")
    if not is_in_transaction and options["dedupe"] != Dedupe.NONE:
        faults.append(
            "batch= needs one transaction for all of it: take a Transaction, or say dedupe='none' (at least once)"
        )
    return faults


def _order_faults(options: dict[str, Any]) -> list[str]:
    ordered, on_key_failure = options["ordered"], options["on_key_failure"]
    faults = []
    if not isinstance(ordered, bool):
        faults.append(f"ordered={ordered!r}: True or False")
    if on_key_failure not in list(OnKeyFailure):
        faults.append(f"on_key_failure={on_key_failure!r}: 'skip' or 'hold_key'")
    elif on_key_failure == OnKeyFailure.HOLD_KEY and not ordered:
        faults.append("on_key_failure='hold_key' holds an ordering key, which needs ordered=True")
    if ordered and options["formerly"]:
        faults.append("formerly= with ordered=True: two queues have no order between them; let the old one run empty")
    if ordered and options["dedupe"] == Dedupe.NONE:
        faults.append(
            "ordered=True needs the inbox: a redelivery would run again after younger ones; drop dedupe='none'"
        )
    return faults


def _record_faults(options: dict[str, Any], *, is_in_transaction: bool) -> list[str]:
    dedupe, on_unknown = options["dedupe"], options["on_unknown"]
    faults = [] if dedupe in list(Dedupe) else [f"dedupe={dedupe!r}: 'inbox' or 'none'"]
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


def _is_delay(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= limits.TIERS_SECONDS[-1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_name(value: object, bytes_max: int) -> bool:
    """Tell whether something may name a queue or a type: printable text without spaces."""
    try:
        check_short_text("name", value)
    except InvalidMessage:
        return False
    text = str(value)
    return 0 < len(text.encode()) <= bytes_max and text.isprintable() and " " not in text
