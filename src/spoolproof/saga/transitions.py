"""Every move a saga can make, as data. What is not in the table raises InvariantViolated: nothing is half done unseen.

There is no `failed`: a saga is over when its work is done, when all of it is undone, or when a person has accepted the
loss. A saga in review waits for a person alone; all others are due at some time, or wait for something that is named.
"""

from __future__ import annotations

from collections.abc import Mapping

from spoolproof.errors import InvariantViolated
from spoolproof.ports.sagas import SagaState

_S = SagaState
TRANSITIONS: Mapping[SagaState, frozenset[SagaState]] = {
    _S.EXPECTED: frozenset({_S.RUNNING}),
    _S.RUNNING: frozenset({_S.COMPLETED, _S.COMPENSATING, _S.IN_REVIEW}),
    _S.COMPENSATING: frozenset({_S.SETTLING, _S.COMPENSATED, _S.IN_REVIEW}),
    _S.SETTLING: frozenset({_S.COMPENSATING, _S.COMPENSATED, _S.IN_REVIEW}),
    _S.IN_REVIEW: frozenset({_S.RUNNING, _S.COMPENSATING, _S.COMPENSATED, _S.ABANDONED}),
    _S.COMPLETED: frozenset(),
    _S.COMPENSATED: frozenset(),
    _S.ABANDONED: frozenset(),
}
OVER = frozenset(state for state, moves in TRANSITIONS.items() if not moves)


def check_move(before: SagaState, after: SagaState) -> None:
    """Raise InvariantViolated for a move that is not in the table; staying is none."""
    if before is not after and after not in TRANSITIONS[before]:
        raise InvariantViolated(f"a saga cannot go from {before} to {after}")
