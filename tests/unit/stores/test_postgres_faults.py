"""Foreign errors of PostgreSQL become ours in one place, and none is missed."""

from __future__ import annotations

import inspect

import asyncpg
import pytest
from asyncpg import exceptions

from spoolproof.errors import StoreUnavailable
from spoolproof.stores.postgres.faults import is_away, is_own_trouble, is_table_missing, unavailable

ERRORS = [
    error
    for _, error in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(error, asyncpg.PostgresError) and error.sqlstate
]
AWAY = [error for error in ERRORS if error.sqlstate[:2] in ("08", "53", "57", "58") and error.sqlstate != "57014"]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: error.__name__)
def test_every_error_of_connection_resources_and_shutdown_is_an_outage(error: type[asyncpg.PostgresError]) -> None:
    """Rule 5: unmapped, it would burn an attempt of every message in hand."""
    assert is_away(error("gone"))
    assert is_own_trouble(error("gone"))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "refused"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
        OSError("no route to host"),
        exceptions.ReadOnlySQLTransactionError("standby"),
        exceptions.IdleInTransactionSessionTimeoutError("idle"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_network_and_a_server_that_refuses_writes_are_outages(error: Exception) -> None:
    """Waiting helps, and no message is to blame."""
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [error for error in ERRORS if error.sqlstate[:2] in ("22", "23", "42", "P0") or error.sqlstate == "57014"],
    ids=lambda error: error.__name__,
)
def test_errors_about_a_statement_are_not(error: type[asyncpg.PostgresError]) -> None:
    """A handler's IntegrityError taken for an outage would be tried for ever."""
    assert not is_away(error("yours"), is_closed=True)


@pytest.mark.parametrize("error", [asyncpg.InterfaceError("x"), asyncpg.InternalClientError("x")])
def test_the_drivers_own_errors_count_only_when_the_connection_has_ended(error: Exception) -> None:
    """A wrong argument raises the same classes as a closed connection."""
    assert not is_away(error)
    assert is_away(error, is_closed=True)


@pytest.mark.parametrize("error", [exceptions.DeadlockDetectedError, exceptions.QueryCanceledError])
def test_a_statement_of_ours_that_lost_a_race_may_be_tried_again(error: type[asyncpg.PostgresError]) -> None:
    """In a user's transaction the same error is theirs to see."""
    assert is_own_trouble(error("again"))
    assert not is_away(error("again"))


def test_an_error_without_text_still_says_something() -> None:
    """TimeoutError is the most frequent one and has none."""
    assert "postgresql://db: no answer in time" == str(unavailable("postgresql://db", TimeoutError()))
    assert isinstance(unavailable("db", OSError("x")), StoreUnavailable)


def test_a_missing_schema_or_table_is_told_apart() -> None:
    """It gets the migrate command, and is no outage."""
    assert is_table_missing(exceptions.UndefinedTableError("x"))
    assert is_table_missing(exceptions.InvalidSchemaNameError("x"))
    assert not is_table_missing(exceptions.UndefinedColumnError("x"))
