"""What the author of a step is given, and what a probe says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from spoolproof.ports.reviews import Priority

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One attempt of a step, or of its compensation.

    key: of this effect, the same for all its attempts, processes and versions; at most 255 characters. forward_key: of
    what a compensation undoes, for anything else the same as `key`. item: which of several steps of one name. attempt:
    from 1, counted across restarts. epoch: rises with every change of owner; for receivers that check a fencing token.
    """

    saga_id: str
    name: str
    item: str
    key: str
    forward_key: str
    attempt: int
    epoch: int
    _open: Callable[..., Awaitable[None]] | None = field(default=None, repr=False)

    async def open_review(
        self,
        name: str,
        tx: object,
        *,
        text: str = "",
        evidence: Any = None,
        priority: str = Priority.NORMAL,
        due_seconds: float | None = None,
    ) -> None:
        """Ask a person now, in the commit of this step; `saga.review(name)` waits for the answer later on.

        tx: of this step, whose effect is tx. The rest as for `saga.review`. Raises RuntimeError for another
        transaction, InvalidMessage.
        """
        if self._open is None:
            raise RuntimeError(f"step {self.name!r}: only a step with effect='tx' opens a review, through its own tx")
        await self._open(name, tx, text=text, evidence=evidence, priority=priority, due_seconds=due_seconds)


@dataclass(frozen=True, slots=True)
class Landed(Generic[T]):
    """The effect took place; output: what the step would have returned."""

    output: T


@dataclass(frozen=True, slots=True)
class NotLanded:
    """It did not."""


@dataclass(frozen=True, slots=True)
class StillUnknown:
    """The other side cannot say."""


Probed = Landed[Any] | NotLanded | StillUnknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a person answered to `saga.review`. action: approve, reject or edit; payload: what edit changed."""

    action: str
    reason: str = ""
    actor: str = ""
    payload: Any = None
