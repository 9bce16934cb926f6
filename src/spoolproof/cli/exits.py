"""What a command's end means: the one place where errors become exit codes.

0 fine, 1 failed, 2 usage (arguments or settings), 3 not reachable, 4 refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof.caught import error_line, error_text
from spoolproof.errors import SpoolproofError

FINE = 0
FAILED = 1
USAGE = 2
NOT_REACHABLE = 3
REFUSED = 4

_CODES = {"settings": USAGE, "registration": USAGE, "usage": USAGE, "not_reachable": NOT_REACHABLE, "refused": REFUSED}


class Refused(SpoolproofError):
    """The command is legal and is not done as things stand. hint: what would make it so."""

    code = "refused"

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


class Usage(SpoolproofError):
    """The arguments do not name what they should. hint: what to write instead."""

    code = "usage"

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a command reports it. code: one word for machines."""

    exit_code: int
    code: str
    message: str
    hint: str

    def document(self) -> dict[str, str]:
        """Return it as the `error` of a JSON document."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


def failure_of(error: BaseException) -> Failure:
    """Return what an error means for the one who typed the command."""
    text = error_text(error)
    if isinstance(error, SpoolproofError):
        return Failure(_CODES.get(error.code, FAILED), error.code, text, error.hint)
    return Failure(FAILED, "failed", error_line(error), "")
