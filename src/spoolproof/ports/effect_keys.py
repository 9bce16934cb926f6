"""Keys of effects that a receiver has had, each with the answer it gave: what makes a repeated call harmless.

A key is written in the transaction of its effect, so that both are there or neither. Of two who write one key at once
the second waits for the first to end. One that is withdrawn never has its effect again.

Never here: what the effect is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from spoolproof import limits
from spoolproof.ports.retention import Rule
from spoolproof.ports.transaction import StoreTransaction

RETENTION = (
    Rule(
        table="effect_key",
        key=("service", "scope", "key"),
        since="created_at",
        seconds=limits.EFFECT_KEY_RETENTION_SECONDS,
    ),
)


class KeyState(StrEnum):
    """landed: the effect took place. withdrawn: it was undone, or must not take place any more."""

    LANDED = "landed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class EffectKey:
    """Whose key it is: of a service, of a scope within it."""

    service: str
    scope: str
    key: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a key. answer: JSON; None where the effect gave none."""

    state: KeyState
    answer: bytes | None = None


class EffectKeys(Protocol):
    """The table of keys; everything happens in the caller's transaction."""

    async def add(self, tx: StoreTransaction, key: EffectKey, state: KeyState) -> bool:
        """Write a key that is not there; False if it is. One that another transaction is about to write is waited
        for."""

    async def get(self, tx: StoreTransaction, key: EffectKey) -> Kept | None:
        """Return what is kept of a key."""

    async def answer(self, tx: StoreTransaction, key: EffectKey, answer: bytes) -> None:
        """Keep the answer of an effect that was added in this transaction."""

    async def withdraw(self, tx: StoreTransaction, key: EffectKey) -> Kept | None:
        """Turn a landed key into a withdrawn one; returns what it was, or None for one that is not landed."""
