"""What the real exceptions of real libraries mean, and what the table says of statuses and codes.

A library that renames a class must fail here, not open a breaker in production.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
import ssl
from datetime import timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import asyncpg
import botocore.exceptions
import grpc
import httpx
import pika.exceptions
import pytest
import redis.exceptions
import requests
import sqlalchemy.exc
import urllib3.exceptions

from spoolproof.clock import SYSTEM
from spoolproof.errors import (
    AttemptTimeout,
    BreakerOpen,
    BrokerUnavailable,
    BulkheadFull,
    DeadlineExceeded,
    OutboxFull,
    PolicyConfigError,
    PolicyError,
    StoreUnavailable,
)
from spoolproof.policies import Classifier, Kind, Verdict
from spoolproof.policies.classifier import DEFAULT, text_of
from spoolproof.policies.verdict import SUCCESS, Status

REQUEST = httpx.Request("GET", "http://127.0.0.1/")


class WithStatus(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        self.response = SimpleNamespace(status_code=status, headers=headers)


class WithState(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


class GrpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def _response(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(status, headers={"Retry-After": "7"}))


def _of(kind: type[BaseException], *args: Any) -> BaseException:
    """An instance made without its constructor, which wants a live connection."""
    error = kind.__new__(kind)
    Exception.__init__(error, *args)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "unknown"),
    [
        (asyncio.CancelledError(), Kind.CANCELLED, True),
        (KeyboardInterrupt(), Kind.CANCELLED, True),
        (BulkheadFull(policy="a", running=1, queued=1), Kind.LOCAL, False),
        (BreakerOpen(policy="a", state="open", reason="", retry_after_seconds=3), Kind.LOCAL, False),
        (AttemptTimeout(policy="a", timeout_seconds=1), Kind.TIMEOUT, True),
        (TimeoutError(), Kind.TIMEOUT, True),
        (OSError(errno.ETIMEDOUT, ""), Kind.TIMEOUT, True),
        (OSError(errno.ENOSPC, ""), Kind.LOCAL, False),
        (OSError(errno.EMFILE, ""), Kind.LOCAL, False),
        (OSError(errno.EHOSTUNREACH, ""), Kind.TRANSIENT, False),
        (ConnectionRefusedError(), Kind.TRANSIENT, False),
        (ConnectionResetError(), Kind.TRANSIENT, True),
        (socket.gaierror(), Kind.TRANSIENT, False),
        (ssl.SSLCertVerificationError(), Kind.TRANSIENT, False),
        (ssl.SSLError(1, "broken pipe"), Kind.TRANSIENT, True),
        (StoreUnavailable(), Kind.TRANSIENT, True),
        (BrokerUnavailable(), Kind.TRANSIENT, False),
        (OutboxFull(1, 1), Kind.LOCAL, False),
        (TypeError(), Kind.BUG, False),
        (MemoryError(), Kind.BUG, False),
        (WithState("40001"), Kind.TRANSIENT, False),
        (WithState("57P01"), Kind.TRANSIENT, True),
        (WithState("08006"), Kind.TRANSIENT, True),
        (WithState("53300"), Kind.OVERLOADED, False),
        (WithState("23505"), Kind.PERMANENT, False),
        (WithState("42P01"), Kind.PERMANENT, False),
        (WithStatus(408), Kind.TRANSIENT, False),
        (WithStatus(401), Kind.TRANSIENT, False),
        (WithStatus(404), Kind.PERMANENT, False),
        (WithStatus(429), Kind.RATE_LIMITED, False),
        (WithStatus(500), Kind.TRANSIENT, True),
        (WithStatus(501), Kind.PERMANENT, False),
        (WithStatus(503), Kind.OVERLOADED, True),
        (WithStatus(503, **{"Retry-After": "3"}), Kind.OVERLOADED, False),
        (_response(503), Kind.OVERLOADED, False),
        (httpx.ConnectError("", request=REQUEST), Kind.TRANSIENT, False),
        (httpx.ConnectTimeout("", request=REQUEST), Kind.TRANSIENT, False),
        (httpx.ReadTimeout("", request=REQUEST), Kind.TIMEOUT, True),
        (httpx.PoolTimeout("", request=REQUEST), Kind.LOCAL, False),
        (httpx.RemoteProtocolError("", request=REQUEST), Kind.TRANSIENT, True),
        (httpx.ReadError("", request=REQUEST), Kind.TRANSIENT, True),
        (httpx.UnsupportedProtocol("", request=REQUEST), Kind.BUG, False),
        (_of(aiohttp.ClientConnectorError), Kind.TRANSIENT, False),
        (aiohttp.ServerDisconnectedError(), Kind.TRANSIENT, True),
        (aiohttp.ServerTimeoutError(), Kind.TIMEOUT, True),
        (aiohttp.ConnectionTimeoutError(), Kind.TRANSIENT, False),
        (aiohttp.ClientPayloadError(), Kind.TRANSIENT, True),
        (requests.ConnectTimeout(), Kind.TRANSIENT, False),
        (requests.ReadTimeout(), Kind.TIMEOUT, True),
        (requests.ConnectionError(), Kind.TRANSIENT, True),
        (_of(urllib3.exceptions.NewConnectionError), Kind.TRANSIENT, False),
        (_of(urllib3.exceptions.ReadTimeoutError), Kind.TIMEOUT, True),
        (_of(urllib3.exceptions.EmptyPoolError), Kind.LOCAL, False),
        (urllib3.exceptions.ProtocolError(), Kind.TRANSIENT, True),
        (redis.exceptions.TimeoutError(), Kind.TIMEOUT, True),
        (redis.exceptions.ConnectionError(), Kind.TRANSIENT, True),
        (redis.exceptions.BusyLoadingError(), Kind.TRANSIENT, False),
        (redis.exceptions.ResponseError(), Kind.PERMANENT, False),
        (asyncpg.SerializationError(), Kind.TRANSIENT, False),
        (asyncpg.UniqueViolationError(), Kind.PERMANENT, False),
        (asyncpg.TooManyConnectionsError(), Kind.OVERLOADED, False),
        (asyncpg.ConnectionDoesNotExistError(), Kind.TRANSIENT, True),
        (asyncpg.InterfaceError("closed"), Kind.TRANSIENT, False),
        (pika.exceptions.AMQPConnectionError(), Kind.TRANSIENT, False),
        (pika.exceptions.StreamLostError(), Kind.TRANSIENT, True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url=""), Kind.TRANSIENT, False),
        (botocore.exceptions.ReadTimeoutError(endpoint_url=""), Kind.TIMEOUT, True),
        (
            botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPStatusCode": 500}}, "SendMessage"),
            Kind.TRANSIENT,
            True,
        ),
        (GrpcError(grpc.StatusCode.UNAVAILABLE), Kind.TRANSIENT, True),
        (GrpcError(grpc.StatusCode.DEADLINE_EXCEEDED), Kind.TIMEOUT, True),
        (GrpcError(grpc.StatusCode.NOT_FOUND), Kind.PERMANENT, False),
        (GrpcError(grpc.StatusCode.RESOURCE_EXHAUSTED), Kind.RATE_LIMITED, False),
        (sqlalchemy.exc.TimeoutError(), Kind.LOCAL, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_error_means_what_the_table_says(error: BaseException, kind: Kind, unknown: bool) -> None:
    verdict = DEFAULT.of_error(error)

    assert (kind, unknown) == (verdict.kind, verdict.is_unknown)


def test_an_error_that_nobody_knows_is_a_bug_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Retried it might be harmful; dropped it would be lost. Whoever reads the log classifies it."""

    class Odd(Exception):
        pass

    verdicts = [DEFAULT.of_error(Odd()) for _ in range(3)]

    assert {(Kind.BUG, True)} == {(verdict.kind, verdict.is_unknown) for verdict in verdicts}
    assert 1 == sum("classify it" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("has_started", "elapsed", "blame", "expected"),
    [
        (False, 0.0, 5.0, (Kind.DEADLINE, False)),
        (True, 1.0, 5.0, (Kind.DEADLINE, True)),
        (True, 5.0, 5.0, (Kind.TIMEOUT, True)),
        (True, 99.0, None, (Kind.DEADLINE, True)),
    ],
)
def test_a_deadline_blames_the_dependency_only_after_long_enough(
    has_started: bool, elapsed: float, blame: float | None, expected: tuple[Kind, bool]
) -> None:
    error = DeadlineExceeded(policy="a", has_started=has_started)

    verdict = DEFAULT.of_error(error, has_started=has_started, elapsed_seconds=elapsed, blame_seconds=blame)

    assert expected == (verdict.kind, verdict.is_unknown)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), ("0", None), ("-1", None), ("soon", None), ("1e3", None), ("", None), ("9" * 400, None)],
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert seconds == DEFAULT.of_error(WithStatus(429, **{"Retry-After": text})).retry_after_seconds


def test_retry_after_as_a_date() -> None:
    later = format_datetime(SYSTEM.now() + timedelta(seconds=90), usegmt=True)
    past = format_datetime(SYSTEM.now() - timedelta(seconds=90), usegmt=True)

    seconds = DEFAULT.of_error(WithStatus(429, **{"retry-after": later})).retry_after_seconds

    assert 85 < seconds <= 90
    assert DEFAULT.of_error(WithStatus(429, **{"retry-after": past})).retry_after_seconds is None


def test_rules_of_the_user_come_first_and_in_their_order() -> None:
    classify = Classifier().permanent(ConnectionResetError).transient(OSError, unknown=False).bug(lambda error: True)

    kinds = [classify.of_error(error).kind for error in (ConnectionResetError(), OSError(), KeyError())]

    assert [Kind.PERMANENT, Kind.TRANSIENT, Kind.BUG] == kinds
    assert Kind.CANCELLED is classify.of_error(asyncio.CancelledError()).kind


def test_a_classifier_is_a_value() -> None:
    first = Classifier()
    first.transient(KeyError)

    assert Kind.BUG is first.of_error(KeyError()).kind


@pytest.mark.parametrize("rule", [asyncio.CancelledError, KeyboardInterrupt, PolicyError, AttemptTimeout, 3, int])
def test_rules_that_no_setting_may_change_are_refused(rule: Any) -> None:
    with pytest.raises(PolicyConfigError):
        Classifier().transient(rule)


def test_results_are_judged_when_asked() -> None:
    classify = Classifier().result(lambda value: Kind.PERMANENT if value == "no" else None).http_results()
    too_many = SimpleNamespace(status=429, headers={"Retry-After": "4"})

    found = [classify.of_result(value) for value in ("yes", "no", too_many, SimpleNamespace(status=200))]

    assert [None, Kind.PERMANENT, Kind.RATE_LIMITED, None] == [verdict.kind for verdict in found]
    assert 4.0 == found[2].retry_after_seconds
    assert SUCCESS == DEFAULT.of_result(too_many)
    assert Verdict(Status.SUCCESS) == found[0]


def test_error_texts_hold_no_secrets_and_are_short() -> None:
    error = RuntimeError("no answer from amqp://user:secret@host:5672/v?token=abc and https://a.b/c?key=1 " + "x" * 400)

    text = text_of(error)

    assert 200 == len(text)
    assert "secret" not in text
    assert "token" not in text
    assert "key=1" not in text
    assert "amqp://host:5672/v" in text


@pytest.mark.parametrize("library", [httpx, aiohttp, requests.exceptions, redis.exceptions])
def test_no_network_error_of_a_library_is_taken_for_a_bug(library: Any) -> None:
    """A class that is new in a release of theirs would otherwise stop being retried, in silence."""
    network = ("Timeout", "Connect", "Disconnect", "Network", "Protocol")
    harmless = {"UnsupportedProtocol", "LocalProtocolError", "InvalidProtocol"}
    found = [
        error
        for name, error in inspect.getmembers(library, inspect.isclass)
        if issubclass(error, Exception) and any(word in name for word in network) and name not in harmless
    ]

    bugs = [error.__name__ for error in found if DEFAULT.of_error(_of(error)).kind is Kind.BUG]

    assert found
    assert [] == bugs
