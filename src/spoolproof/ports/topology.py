"""What a broker holds of what a service needs, as people are told it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing a service needs. what: `queue shop.orders`. wanted: its arguments. found: `as wanted`, `missing`, or
    the difference. is_drift: it is not as it should be, and nothing was done about it. remedy: what a person does."""

    what: str
    wanted: str
    found: str
    is_drift: bool = False
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """broker: what answered, with its version. items: in the order of declaration. doubts: what could go wrong
    although it is as wanted. unseen: what the protocol does not show."""

    broker: str
    items: tuple[Item, ...]
    doubts: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def has_drifted(self) -> bool:
        """Whether anything is not as it should be."""
        return bool(self.doubts) or any(item.is_drift for item in self.items)
