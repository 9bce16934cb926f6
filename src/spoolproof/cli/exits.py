"""What a command's end means: the one place where errors become exit codes.

0 fine, 1 failed, 2 usage (arguments or settings), 3 not reachable, 4 refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof.errors import (
    Conflict,
    InvalidMessage,
    MissingExtra,
    NotFound,
    RegistrationError,
    SchemaOutdated,
    SettingsError,
    SpoolproofError,
    Unavailable,
)

FINE = 0
FAILED = 1
USAGE = 2
NOT_REACHABLE = 3
REFUSED = 4


class Refused(SpoolproofError):
    """The command is legal and is not done as things stand. hint: what would make it so."""

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


class Usage(SpoolproofError):
    """The arguments do not name what they should. hint: what to write instead."""

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
    text = str(error) or type(error).__name__
    match error:
        case Refused(hint=hint):
            return Failure(REFUSED, "refused", text, hint)
        case Usage(hint=hint):
            return Failure(USAGE, "usage", text, hint)
        case SettingsError():
            return Failure(USAGE, "settings", text, "correct them in the environment or in .env")
        case RegistrationError():
            return Failure(USAGE, "registration", text, "correct the service's handlers")
        case InvalidMessage():
            return Failure(USAGE, "usage", text, "spoolproof COMMAND --help shows the options")
        case Unavailable():
            return Failure(NOT_REACHABLE, "not_reachable", text, "spoolproof doctor shows what can be reached")
        case Conflict():
            return Failure(REFUSED, "refused", text, "spoolproof dlq show ID tells what was done to it")
        case NotFound():
            return Failure(FAILED, "not_found", text, "spoolproof dlq ls --json lists ids in full")
        case SchemaOutdated():
            return Failure(FAILED, "schema_outdated", text, "spoolproof migrate")
        case MissingExtra(extra=extra):
            return Failure(FAILED, "missing_extra", text, f"pip install 'spoolproof[{extra}]'")
        case SpoolproofError():
            return Failure(FAILED, "failed", text, "")
        case _:
            return Failure(FAILED, "failed", f"{type(error).__name__}: {text}", "")
