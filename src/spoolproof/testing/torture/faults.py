"""What can go wrong with one call of one step, and with which kind of step it can.

A fault strikes the first call, or every one where it says so. What is killed, frozen or raced is the process that makes
the call.
"""

from __future__ import annotations

from enum import StrEnum

from spoolproof.ports.sagas import Phase
from spoolproof.saga.outcome import Effect

Place = tuple[Phase, str, str]


class Fault(StrEnum):
    """Its value is its name in the table."""

    NONE = "no fault"
    REFUSED = "refused"
    AWAY_ONCE = "unavailable once"
    AWAY = "unavailable throughout"
    LOST_ONCE = "answer lost"  #: the call landed, its caller was told nothing
    LOST = "every answer lost"
    LATE = "landed late"  #: after the next attempt
    LATE_AFTER_UNDO = "landed after its undo"
    KILLED_IN_CALL = "killed before it landed"
    KILLED_BEFORE_RECORD = "killed before the record"
    KILLED_AFTER_RECORD = "killed after the record"
    TWICE = "run twice at once"  #: its process has lost its lease and does not know
    FROZEN = "frozen past the lease"
    UNDO_AWAY = "undo unavailable once"
    UNDO_LOST = "undo's answer lost"
    UNDO_KILLED = "killed in the undo"  #: it has landed, and is not recorded
    UNDO_REFUSED = "undo refused"


UNDO = frozenset({Fault.UNDO_AWAY, Fault.UNDO_LOST, Fault.UNDO_KILLED, Fault.UNDO_REFUSED})
_F = Fault
_ANY = (_F.REFUSED, _F.AWAY_ONCE, _F.AWAY, _F.KILLED_IN_CALL)
_CALL = (*_ANY, _F.LOST_ONCE, _F.LOST, _F.LATE, _F.LATE_AFTER_UNDO)
_KILLED = (_F.KILLED_BEFORE_RECORD, _F.KILLED_AFTER_RECORD)
FAULTS = {
    Effect.KEYED: (*_CALL, *_KILLED, _F.TWICE, _F.FROZEN),
    Effect.ONCE: (*_CALL, *_KILLED, _F.TWICE, _F.FROZEN),
    Effect.TX: (*_ANY, _F.LOST_ONCE, *_KILLED, _F.FROZEN),
    Effect.READ: _ANY,
}
"""Those of a step. What a transaction has not committed cannot land late, and a read has nothing to land."""
