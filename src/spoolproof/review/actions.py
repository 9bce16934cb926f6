"""What a decision does: one function for each (kind, action), run in the transaction that resolves the item."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction, signature
from typing import Any

from spoolproof.errors import RegistrationError
from spoolproof.message import Message
from spoolproof.ports.reviews import ReviewItem
from spoolproof.review.item import check_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided. values: what they entered beside it, perhaps nothing. message: what the item carries."""

    item: ReviewItem
    action: str
    actor: str
    reason: str
    values: Mapping[str, Any]
    message: Message | None = None


Effect = Callable[[Decision, Any], Awaitable[object]]
"""`async def effect(decision: Decision, tx: Transaction)`."""


@dataclass(frozen=True, slots=True)
class Registered:
    """An effect, and whether two people must agree to it."""

    effect: Effect
    four_eyes: bool = False


class Actions:
    """The registry of effects of one service."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], Registered] = {}

    def add(self, kind: str, action: str, effect: Effect, *, four_eyes: bool = False) -> None:
        """Register an effect. Raises RegistrationError for a second one, or a function that cannot be one."""
        check_name("kind", kind)
        check_name("action", action)
        where = f"@service.reviews.action({kind!r}, {action!r})"
        if (kind, action) in self._of:
            raise RegistrationError(f"{where}: has an effect already")
        if not iscoroutinefunction(effect) or len(signature(effect).parameters) != 2:
            raise RegistrationError(f"{where}: write `async def effect(decision, tx)`; {effect!r} is none")
        self._of[kind, action] = Registered(effect, four_eyes)

    def own(self, kind: str, action: str, effect: Effect) -> None:
        """Set the effect of a kind of our own: that of the runtime that runs now, where a service is started anew."""
        self._of[kind, action] = Registered(effect)

    def get(self, kind: str, action: str) -> Registered | None:
        """Return what an action of a kind does."""
        return self._of.get((kind, action))

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Return the actions of a kind, in the order of their registration."""
        return tuple(action for one, action in self._of if one == kind)
