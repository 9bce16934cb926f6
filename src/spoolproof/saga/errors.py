"""Every error that sagas raise on purpose."""

from __future__ import annotations

from spoolproof.errors import SpoolproofError


class SagaError(SpoolproofError):
    """Something about a saga."""


class Refused(SagaError):
    """Raised by a step, or by a flow: a definite no that has had no effect; what was done before is undone."""

    failure_kind = "permanent"
    is_unknown = False


class Unreadable(SagaError):
    """The journal holds what does not decode as the type that the code names. body: what it holds."""

    def __init__(self, why: str, body: bytes) -> None:
        self.body = body
        super().__init__(f"the journal cannot be read by this code: {why}")


class InvalidSaga(SagaError, ValueError):
    """A start or a signal that no saga can take."""

    code = "usage"


class KeyConflict(SagaError):
    """A saga was started under that id with another payload."""

    code = "refused"


class SagaRefused(SagaError):
    """It was undone, or a person accepted the loss. state: compensated or abandoned."""

    def __init__(self, saga_id: str, state: str, cause: str) -> None:
        self.saga_id = saga_id
        self.state = state
        self.cause = cause
        super().__init__(f"saga {saga_id} is {state}: {cause}")


class SagaInReview(SagaError):
    """It waits for a person."""

    hint = "spoolproof saga show ID"

    def __init__(self, saga_id: str, question: str) -> None:
        self.saga_id = saga_id
        super().__init__(f"saga {saga_id} is in review: {question}")
