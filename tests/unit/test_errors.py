"""Errors cross the border of a process as they are."""

from __future__ import annotations

import copy
import pickle

import pytest

from spoolproof import errors
from spoolproof.requests.errors import RequestTimeout

ERRORS = [
    errors.SettingsError(["a=1: no"]),
    errors.MissingExtra("pika", "rabbitmq"),
    errors.InvalidMessage("id", 1, "not text"),
    errors.UnsupportedTransaction(object(), ["asyncpg"]),
    errors.SchemaOutdated(1, 2, "sqlite"),
    errors.OutboxFull(3, 3),
    RequestTimeout("price.asked", "m-1", 5.0, "stored"),
    errors.StoreUnavailable("gone"),
    errors.PolicyConfigError(["attempts=0: 1 to 10"], policy="psp"),
    errors.BreakerOpen("psp", "open", "too many failures", 5.0, "refused"),
    errors.BulkheadFull(policy="psp", running=1, queued=2),
    errors.RateLimited(policy="psp", retry_after_seconds=3.0, by="cooldown"),
    errors.ThreadsExhausted(policy="psp", abandoned=64),
    errors.AttemptTimeout(policy="psp", timeout_seconds=10),
    errors.DeadlineExceeded(policy="psp", has_started=True),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_made_again_says_the_same(error: Exception, again: object) -> None:
    """A pool of processes breaks for all its tasks when an error of one cannot be read."""
    error.add_note("attempt 3 of 3")

    twin = again(error)  # type: ignore[operator]

    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
