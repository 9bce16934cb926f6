"""Which error ends a command with which code."""

from __future__ import annotations

import pytest

from spoolproof.cli.exits import Refused, Usage, failure_of
from spoolproof.errors import (
    BrokerUnavailable,
    Conflict,
    InvalidMessage,
    InvariantViolated,
    MissingExtra,
    NotFound,
    RegistrationError,
    SchemaOutdated,
    SettingsError,
    StoreUnavailable,
)


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (NotFound("no such"), 1, "not_found"),
        (SchemaOutdated(0, 3, "sqlite:///s"), 1, "schema_outdated"),
        (MissingExtra("pika", "rabbitmq"), 1, "missing_extra"),
        (InvariantViolated("a bug"), 1, "failed"),
        (ZeroDivisionError("division by zero"), 1, "failed"),
        (SettingsError(["a is wrong", "b is wrong"]), 2, "settings"),
        (RegistrationError("twice"), 2, "registration"),
        (InvalidMessage("reason", "", "say why"), 2, "usage"),
        (Usage("no module", "look"), 2, "usage"),
        (StoreUnavailable("refused"), 3, "not_reachable"),
        (BrokerUnavailable("refused"), 3, "not_reachable"),
        (Conflict("it is resolved"), 4, "refused"),
        (Refused("memory", "add --allow-memory"), 4, "refused"),
    ],
)
def test_every_error_has_its_code(error: Exception, exit_code: int, code: str) -> None:
    """0 fine, 1 failed, 2 usage, 3 not reachable, 4 refused: scripts branch on these."""
    failure = failure_of(error)

    assert (exit_code, code) == (failure.exit_code, failure.code)
    assert str(error) in failure.message


def test_every_settings_fault_is_in_the_message() -> None:
    """One run shows all there is to correct."""
    message = failure_of(SettingsError(["a is wrong", "b is wrong"])).message

    assert "a is wrong" in message
    assert "b is wrong" in message


def test_an_error_without_a_text_is_named_by_its_class() -> None:
    """An empty message helps nobody."""
    assert "KeyError" in failure_of(KeyError()).message
