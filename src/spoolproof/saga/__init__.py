"""Sagas: work in several steps across systems that share no transaction, finished or undone whatever dies meanwhile.

`service.saga("shop.order", version=1)` defines one; see docs/sagas.md.
"""

from __future__ import annotations

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
