"""What is wrong with the input of a batch, found before any of its items runs.

One item that is wrong is that item's verdict; only what makes a batch as a whole impossible is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from spoolproof import limits
from spoolproof.caught import error_line, is_failure, storable_text
from spoolproof.codec import encode_payload, is_mapping
from spoolproof.errors import CodecError, InvalidMessage, LimitReached
from spoolproof.policies.judging.classifier import redact
from spoolproof.ports.batches import Item, ItemState
from spoolproof.roundtrip import reason_of
from spoolproof.telemetry.redaction import masked_text

if TYPE_CHECKING:
    from spoolproof.consumer.jobs.definition import Job

_AT_ONCE = 100  #: items looked at before others get the event loop
_SHOWN = 20


class Problem(msgspec.Struct, frozen=True):
    """Something wrong with an item: what, and of which field."""

    problem: str
    field: str = ""


class BatchInvalid(InvalidMessage):
    """A batch that cannot run as it is: nothing of it was run or stored. items: those that are invalid."""

    def __init__(self, value: object, reason: str, items: Sequence[Item] = ()) -> None:
        self.items = tuple(items)
        super().__init__("items", value, reason)


class BatchTooLarge(LimitReached):
    """A batch of too many items or bytes: nothing of it was run or stored."""

    remedy = "submit it in parts"

    def __init__(self, what: str, current: int, maximum: int) -> None:
        self.what = what
        super().__init__(current, maximum)


@dataclass(frozen=True, slots=True)
class Checked:
    """An item that was looked at. body: its payload as JSON; empty for one that is invalid. value: the item itself."""

    item: Item
    body: str
    value: object = None

    @property
    def is_valid(self) -> bool:
        """Whether it may run."""
        return self.item.state is not ItemState.INVALID


async def checked(job: Job, items: Iterable[object] | Mapping[str, object], on_invalid: str) -> list[Checked]:
    """Return every item with its verdict. Raises BatchInvalid for an empty batch, or with on_invalid="refuse" if any
    is invalid; BatchTooLarge."""
    if on_invalid not in ("report", "refuse"):
        raise InvalidMessage("on_invalid", on_invalid, "must be 'report' or 'refuse'")
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise BatchInvalid(items, "must be a sequence of items, or a mapping from id to item")
    most = limits.BATCH_ITEMS_MAX
    pairs = list(islice(items.items() if isinstance(items, Mapping) else ((None, one) for one in items), most + 1))
    if not pairs:
        raise BatchInvalid([], "is empty; a batch has at least one item")
    if len(pairs) > most:
        raise BatchTooLarge("items of a batch", len(pairs), most)
    found: list[Checked] = []
    known: dict[str, int] = {}
    bytes_left = limits.BATCH_BYTES_MAX
    for n, (given, value) in enumerate(pairs):
        one = _checked(job, n, given, value, known)
        if one.is_valid:
            known[one.item.id] = n
        bytes_left -= len(one.body.encode())
        if bytes_left < 0:
            raise BatchTooLarge("bytes of a batch", limits.BATCH_BYTES_MAX - bytes_left, limits.BATCH_BYTES_MAX)
        found.append(one)
        if n % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    invalid = [one.item for one in found if not one.is_valid]
    if invalid and on_invalid == "refuse":
        told = "; ".join(f"{one.id}: {one.field and one.field + ': '}{one.error}" for one in invalid[:_SHOWN])
        raise BatchInvalid(len(invalid), f"of {len(found)} are invalid: {told}", invalid)
    return found


def _checked(job: Job, n: int, given: object, value: object, known: Mapping[str, int]) -> Checked:
    id = str(n) if given is None else given
    try:
        value, body = _read(job, value)
        if given is None and job.item_id is not None:
            id = job.item_id(value)
        problem = _fault_of_id(id, known) or next(_said(job, value), None)
        if problem is None and len(body) > limits.BATCH_ITEM_BYTES_MAX:
            problem = Problem(f"{len(body)} bytes as JSON, at most {limits.BATCH_ITEM_BYTES_MAX}")
    except BaseException as error:  # of the model's validators, or the job's: whatever they raise is about this item
        if not is_failure(error):
            raise
        body, problem = b"", _problem_of(error)
    if problem is None:
        return Checked(Item(n=n, id=str(id), state=ItemState.PENDING, reason="queued"), body.decode(), value)
    usable = id if isinstance(id, str) and _fault_of_id(id, {}) is None else str(n)
    told = shown(problem.problem)
    item = Item(n=n, id=usable, state=ItemState.INVALID, error_class="invalid", error=told, field=problem.field)
    return Checked(item, "")


def _read(job: Job, value: Any) -> tuple[object, bytes]:
    """Return an item and its bytes, from which the same item is read again."""
    kind = type(value)
    if kind is not job.model and not (job.model is dict and is_mapping(kind)):
        value = job.decode(msgspec.json.encode(value))
    return value, encode_payload(value)


def _fault_of_id(id: object, known: Mapping[str, int]) -> Problem | None:
    most = limits.BATCH_ID_CHARACTERS_MAX
    if not isinstance(id, str) or not 1 <= len(id) <= most or not id.isprintable():
        return Problem(f"its id is {id!r:.200}, and must be text of 1 to {most} characters")
    return Problem(f"its id {id!r} is that of item {known[id]}") if id in known else None


def _said(job: Job, value: object) -> Iterator[Problem]:
    said = None if job.validate is None else job.validate(value)
    for one in (said,) if isinstance(said, str | Problem) else said or ():
        yield one if isinstance(one, Problem) else Problem(str(one))


def _problem_of(error: BaseException) -> Problem:
    if isinstance(error, CodecError):
        text = str(error).partition(" read back: ")[2]
    elif isinstance(error, msgspec.ValidationError) or hasattr(error, "errors"):
        text = reason_of(error)  # type: ignore[arg-type]
    else:
        return Problem(error_line(error))
    field, _, reason = text.partition(": ")
    return Problem(reason, "" if field == "the payload" else field)


def shown(text: str) -> str:
    """Return an error's text as a report may show it: without credentials, cut."""
    return masked_text(redact(storable_text(text)))[: limits.BATCH_ERROR_CHARACTERS_MAX]
