"""Sagas: work in several steps across systems that share no transaction, finished or undone whatever dies meanwhile.

`service.saga("shop.order", version=1)` defines one; see docs/sagas.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spoolproof.ports.sagas import SagaState
    from spoolproof.saga.errors import KeyConflict, Refused, SagaInReview, SagaRefused
    from spoolproof.saga.flow import Flow
    from spoolproof.saga.step import Landed, NotLanded, Step, StillUnknown, Verdict

__all__ = [
    "Flow",
    "KeyConflict",
    "Landed",
    "NotLanded",
    "Refused",
    "SagaInReview",
    "SagaRefused",
    "SagaState",
    "Step",
    "StillUnknown",
    "Verdict",
]

_PLACES = ("saga.step", "saga.flow", "saga.errors", "ports.sagas")


def __getattr__(name: str) -> Any:
    # not at once: every command reads the settings, which are in this folder too
    if name in __all__:
        from importlib import import_module

        for place in _PLACES:
            found = getattr(import_module(f"spoolproof.{place}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
