"""What the real exceptions of real libraries mean, and what the table says of statuses and codes.

A library that renames a class must fail here, not open a breaker in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import smtplib
import socket
import sqlite3
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import asyncpg
import botocore.config
import botocore.exceptions
import botocore.retries.standard
import botocore.session
import grpc
import grpc.aio
import httpx
import pika
import pika.exceptions
import psycopg
import psycopg.errors
import pymysql
import pymysql.err
import pytest
import redis
import redis._parsers.base
import redis.exceptions
import requests
import requests.adapters
import sqlalchemy
import sqlalchemy.exc
import urllib3
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
from spoolproof.policies import Breaker, Classifier, Consecutive, Kind, Policy, Registry, Retry, Verdict
from spoolproof.policies.judging.classifier import DEFAULT, text_of
from spoolproof.policies.judging.foreign import seconds_of
from spoolproof.policies.judging.verdict import SUCCESS, Status

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
        (requests.exceptions.SSLError(ssl.SSLCertVerificationError()), Kind.TRANSIENT, False),
        (requests.exceptions.SSLError(ssl.SSLEOFError()), Kind.TRANSIENT, True),
        (requests.exceptions.RetryError(), Kind.TRANSIENT, True),
        (requests.exceptions.MissingSchema(), Kind.BUG, False),
        (_of(urllib3.exceptions.NewConnectionError), Kind.TRANSIENT, False),
        (_of(urllib3.exceptions.ReadTimeoutError), Kind.TIMEOUT, True),
        (_of(urllib3.exceptions.EmptyPoolError), Kind.LOCAL, False),
        (urllib3.exceptions.ProtocolError(), Kind.TRANSIENT, True),
        (urllib3.exceptions.ClosedPoolError(None, ""), Kind.LOCAL, False),  # type: ignore[arg-type]
        (urllib3.exceptions.LocationParseError(""), Kind.BUG, False),
        (asyncio.IncompleteReadError(b"", 1), Kind.TRANSIENT, True),
        (redis.exceptions.TimeoutError(), Kind.TIMEOUT, True),
        (redis.exceptions.ConnectionError(), Kind.TRANSIENT, True),
        (redis.exceptions.BusyLoadingError(), Kind.TRANSIENT, False),
        (redis.exceptions.ResponseError(), Kind.PERMANENT, False),
        (asyncpg.SerializationError(), Kind.TRANSIENT, False),
        (asyncpg.UniqueViolationError(), Kind.PERMANENT, False),
        (asyncpg.TooManyConnectionsError(), Kind.OVERLOADED, False),
        (asyncpg.ConnectionDoesNotExistError(), Kind.TRANSIENT, True),
        (asyncpg.InterfaceError("cannot perform operation: connection is closed"), Kind.TRANSIENT, False),
        (asyncpg.InterfaceError("connection has been released back to the pool"), Kind.TRANSIENT, False),
        (asyncpg.InterfaceError("the server expects 1 argument for this query, 0 were passed"), Kind.BUG, False),
        (asyncpg.DataError("invalid input for query argument $1"), Kind.PERMANENT, False),
        (redis.exceptions.WatchError(), Kind.TRANSIENT, False),
        (redis.exceptions.DataError(), Kind.BUG, False),
        (pika.exceptions.AMQPConnectionError(), Kind.TRANSIENT, False),
        (pika.exceptions.StreamLostError(), Kind.TRANSIENT, True),
        (pika.exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), Kind.TRANSIENT, True),
        (pika.exceptions.AMQPHeartbeatTimeout(), Kind.TRANSIENT, True),
        (pika.exceptions.ConnectionWrongStateError(), Kind.TRANSIENT, False),
        (pika.exceptions.NackError([]), Kind.OVERLOADED, False),
        (pika.exceptions.UnroutableError([]), Kind.TRANSIENT, False),
        (pika.exceptions.ShortStringTooLong(), Kind.BUG, False),
        (botocore.exceptions.NoCredentialsError(), Kind.TRANSIENT, False),
        (botocore.exceptions.ParamValidationError(report=""), Kind.BUG, False),
        (botocore.exceptions.SSLError(endpoint_url="", error=ssl.SSLCertVerificationError()), Kind.TRANSIENT, False),
        (botocore.exceptions.SSLError(endpoint_url="", error=ssl.SSLEOFError()), Kind.TRANSIENT, True),
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
        (GrpcError(grpc.StatusCode.CANCELLED), Kind.TRANSIENT, True),
        (sqlalchemy.exc.TimeoutError(), Kind.LOCAL, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_error_means_what_the_table_says(error: BaseException, kind: Kind, unknown: bool) -> None:
    verdict = DEFAULT.of_error(error)

    assert (kind, unknown) == (verdict.kind, verdict.is_unknown)


def test_an_error_that_nobody_knows_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log classifies it."""

    class Odd(Exception):
        pass

    verdicts = [DEFAULT.of_error(Odd()) for _ in range(3)]

    assert {(Kind.TRANSIENT, True)} == {(verdict.kind, verdict.is_unknown) for verdict in verdicts}
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


def test_retry_after_as_a_date_without_a_zone_is_in_utc() -> None:
    """`-0000` says that nobody knows the zone."""
    wall = SYSTEM.now().replace(microsecond=0)

    assert 90.0 == seconds_of((wall + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S -0000"), wall)


def test_headers_that_are_no_mapping_ask_for_nothing() -> None:
    """Whatever an object calls `headers`, its error has to come through."""

    class Strange(Exception):
        status = 503
        headers = SimpleNamespace(get=lambda: "5")

    verdict = DEFAULT.of_error(Strange())

    assert (Kind.OVERLOADED, None) == (verdict.kind, verdict.retry_after_seconds)


def test_an_rpc_that_cannot_say_its_status_is_judged_by_its_class() -> None:
    class Lost(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            raise RuntimeError("the channel is closed")

    class Found(Lost):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.NOT_FOUND

    verdicts = [DEFAULT.of_error(error()) for error in (Lost, Found)]

    assert [(Kind.TRANSIENT, True), (Kind.PERMANENT, False)] == [(one.kind, one.is_unknown) for one in verdicts]


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


# --- the libraries themselves, against servers that fail ------------------------------------------------------------


@pytest.fixture
def refusing() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def hanging_up() -> Iterator[int]:
    """A port whose server reads what it is sent and hangs up without an answer."""
    yield from _hanging_up(connections_max=100)


@pytest.fixture
def hanging_up_soon() -> Iterator[int]:
    """The same for clients that wait for the server's greeting."""
    yield from _hanging_up(connections_max=100, patience_seconds=0.1)


@pytest.fixture
def dying() -> Iterator[int]:
    """A port whose server hangs up on the first connection and is gone for the second."""
    yield from _hanging_up(connections_max=1)


def _hanging_up(connections_max: int, patience_seconds: float = 2.0) -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.05)
        is_over = threading.Event()

        def serve() -> None:
            served = 0
            while not is_over.is_set() and served < connections_max:
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                served += 1
                if served == connections_max:
                    server.close()
                with connection:
                    connection.settimeout(patience_seconds)
                    with contextlib.suppress(OSError):
                        connection.recv(65536)

        thread = threading.Thread(target=serve)
        port = int(server.getsockname()[1])
        thread.start()
        yield port
        is_over.set()
        thread.join()


# --- drivers that are in no table ------------------------------------------------------------------------------------


def _by_psycopg(port: int) -> None:
    psycopg.connect(f"host=127.0.0.1 port={port} connect_timeout=5")


def _by_pymysql(port: int) -> None:
    pymysql.connect(host="127.0.0.1", port=port, connect_timeout=5)


def _by_sqlalchemy(port: int) -> None:
    sqlalchemy.create_engine(f"postgresql+psycopg://127.0.0.1:{port}/db?connect_timeout=5").connect()


def _by_smtplib(port: int) -> None:
    smtplib.SMTP("127.0.0.1", port, timeout=5)


@pytest.mark.parametrize("connect", [_by_psycopg, _by_pymysql, _by_sqlalchemy, _by_smtplib])
@pytest.mark.parametrize("away", ["refusing", "hanging_up_soon"])
def test_an_outage_of_a_driver_in_no_table_opens_its_breaker(
    request: pytest.FixtureRequest, connect: Callable[[int], None], away: str
) -> None:
    """Taken for a bug it would never be tried again and never open: an outage burnt every message it met."""
    port = request.getfixturevalue(away)
    policy = Policy(
        "db",
        Retry(2, delay_seconds=0),
        Breaker(Consecutive(2)),
        idempotent=True,
        registry=Registry({}),
        lint_ignore={"W1"},
    )

    result = policy.result_sync(connect, port)

    assert (2, "open") == (result.attempts, policy.state)
    assert result.verdict.kind in (Kind.TRANSIENT, Kind.TIMEOUT)


def test_what_a_database_refused_says_nothing_against_it() -> None:
    """The names of PEP 249: with no SQLSTATE they are all there is, and a duplicate key is no outage."""
    refused = [
        pymysql.err.IntegrityError(1062, "Duplicate entry"),
        pymysql.err.ProgrammingError(1146, "no such table"),
        sqlite3.IntegrityError("UNIQUE constraint failed"),
        sqlalchemy.exc.IntegrityError("insert", {}, pymysql.err.IntegrityError(1062, "Duplicate entry")),
        psycopg.errors.UniqueViolation(),
    ]
    away = [pymysql.err.OperationalError(2013, "Lost connection"), sqlite3.OperationalError("database is locked")]

    verdicts = [DEFAULT.of_error(error) for error in [*refused, *away]]

    expected = [(Kind.PERMANENT, False)] * len(refused) + [(Kind.TRANSIENT, True)] * len(away)
    assert expected == [(one.kind, one.is_unknown) for one in verdicts]


def test_clients_that_are_in_no_table_are_judged_by_their_shape() -> None:
    """As pymongo, elasticsearch, openai, stripe, kafka-python and mysql-connector define and raise theirs."""

    def like(name: str, *bases: type[Exception], **attributes: Any) -> Exception:
        error = type(name, bases or (Exception,), attributes)()
        assert isinstance(error, Exception)
        return error

    reconnect = like("AutoReconnect")
    transport = like("ConnectionError", errors=())
    openai = like("APIConnectionError", status_code=None)
    openai.__cause__ = httpx.ConnectTimeout("", request=REQUEST)
    openai_busy = like("RateLimitError", status_code=429)
    stripe = like("APIConnectionError", http_status=None)
    card = like("CardError", http_status=402)
    kafka = like("NoBrokersAvailable", RuntimeError)
    mysql = like("InterfaceError", type("Error", (Exception,), {"sqlstate": None}))

    kinds = [
        DEFAULT.of_error(error).kind
        for error in (reconnect, transport, openai, openai_busy, stripe, card, kafka, mysql)
    ]

    away = Kind.TRANSIENT
    assert [away, away, away, Kind.RATE_LIMITED, away, Kind.PERMANENT, away, away] == kinds


def _by_httpx(port: int) -> None:
    with httpx.Client(trust_env=False) as client:
        client.post(f"http://127.0.0.1:{port}/", timeout=5)


def _by_aiohttp(port: int) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/"):
            pass

    asyncio.run(run())


def _by_requests(port: int) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.post(f"http://127.0.0.1:{port}/", timeout=5)


def _by_urllib3(port: int) -> None:
    with urllib3.PoolManager(retries=0, timeout=5) as pool:
        pool.request("POST", f"http://127.0.0.1:{port}/")


def _by_urllib(port: int) -> None:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/", b"", 5)


def _by_redis(port: int) -> None:
    with redis.Redis("127.0.0.1", port, socket_timeout=5, retry=None) as client:
        client.incr("a")


def _by_asyncpg(port: int) -> None:
    asyncio.run(asyncpg.connect(host="127.0.0.1", port=port, user="a", database="a", ssl=False, timeout=5))


def _by_pika(port: int) -> None:
    pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, connection_attempts=1))


def _by_botocore(port: int) -> None:
    client = botocore.session.Session().create_client(
        "sqs",
        region_name="eu-west-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=botocore.config.Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=5),
    )
    try:
        client.list_queues()
    finally:
        client.close()


def _by_grpc(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        channel.unary_unary("/a/b")(b"", timeout=5)


CLIENTS = [
    _by_httpx,
    _by_aiohttp,
    _by_requests,
    _by_urllib3,
    _by_urllib,
    _by_redis,
    _by_asyncpg,
    _by_pika,
    _by_botocore,
    _by_grpc,
]
KNOWN_TO_THE_CLIENT = {
    _by_pika,  # the connection was not yet open, so nothing was published
    _by_grpc,  # the call waited for a connection that was never ready
}


def _verdict(client: Callable[[int], None], port: int) -> Verdict:
    with pytest.raises(Exception) as raised:  # noqa: PT011  which one it is, is the question
        client(port)
    return DEFAULT.of_error(raised.value)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_refused_connection_is_an_outage_in_which_nothing_was_sent(
    client: Callable[[int], None], refusing: int
) -> None:
    """Taken for unknown it would park every message of an outage. Redis clients are the exception: they try again by
    themselves, and refused at the last try does not say what became of the first."""
    verdict = _verdict(client, refusing)

    assert (Kind.TRANSIENT, client is _by_redis) == (verdict.kind, verdict.is_unknown)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_server_that_hangs_up_leaves_the_outcome_unknown(client: Callable[[int], None], hanging_up: int) -> None:
    """Taken for known, a payment would be made twice."""
    verdict = _verdict(client, hanging_up)

    assert (Kind.TRANSIENT, client not in KNOWN_TO_THE_CLIENT) == (verdict.kind, verdict.is_unknown)


@pytest.mark.parametrize("with_requests", [True, False])
def test_refused_after_a_lost_try_of_the_client_itself_is_unknown(with_requests: bool, dying: int) -> None:
    """Rule 4: urllib3 tries again by itself, and tells only of the last try. The first may have been worked on."""
    again = urllib3.Retry(2, allowed_methods=None, backoff_factor=0)

    def by_requests(port: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=again))
            session.post(f"http://127.0.0.1:{port}/", timeout=5)

    def by_urllib3(port: int) -> None:
        with urllib3.PoolManager(retries=again, timeout=5) as pool:
            pool.request("POST", f"http://127.0.0.1:{port}/")

    verdict = _verdict(by_requests if with_requests else by_urllib3, dying)

    assert (Kind.TRANSIENT, True) == (verdict.kind, verdict.is_unknown)
    assert "NewConnectionError" in verdict.reason


def test_an_expired_wait_for_a_pooled_redis_connection_is_local() -> None:
    """The pool says so only in words."""

    class Idle(redis.Connection):
        def connect(self) -> None:
            pass

        def can_read(self, *args: Any, **options: Any) -> bool:
            return False

    pool = redis.BlockingConnectionPool(max_connections=1, timeout=0.01, connection_class=Idle)
    pool.get_connection()

    with pytest.raises(redis.ConnectionError) as raised:
        pool.get_connection()

    verdict = DEFAULT.of_error(raised.value)
    assert (Kind.LOCAL, False) == (verdict.kind, verdict.is_unknown)


async def test_a_name_none_of_whose_addresses_answers_is_an_outage(refusing: int) -> None:
    """asyncio puts several different refusals into one OSError that has no errno."""
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"127.0.0.{n}", refusing)) for n in (1, 2)]
    loop = asyncio.get_running_loop()
    loop.getaddrinfo = lambda *args, **options: asyncio.sleep(0, addresses)  # type: ignore[method-assign]

    with pytest.raises(OSError, match="Multiple exceptions") as raised:
        await asyncio.open_connection("two-addresses", refusing)

    verdict = DEFAULT.of_error(raised.value)
    assert (None, Kind.TRANSIENT, False) == (raised.value.errno, verdict.kind, verdict.is_unknown)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CLUSTERDOWN The cluster is down", Kind.TRANSIENT),
        ("LOADING Redis is loading", Kind.TRANSIENT),
        ("READONLY You can't write against a read only replica.", Kind.TRANSIENT),
        ("MISCONF Redis is configured to save RDB snapshots", Kind.TRANSIENT),
        ("NOREPLICAS Not enough good replicas to write.", Kind.TRANSIENT),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Kind.TRANSIENT),
        ("OOM command not allowed when used memory > 'maxmemory'.", Kind.OVERLOADED),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Kind.PERMANENT),
        ("ERR unknown command", Kind.PERMANENT),
    ],
)
def test_what_redis_answers_means_what_it_says(text: str, kind: Kind) -> None:
    """As its client parses it. An outage taken for an answer would end as dead letters. None was executed."""
    verdict = DEFAULT.of_error(redis._parsers.base.BaseParser.parse_error(text))

    assert (kind, False) == (verdict.kind, verdict.is_unknown)


@pytest.mark.parametrize("code", sorted(botocore.retries.standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES))
def test_what_aws_throttles_is_never_a_dead_letter(code: str) -> None:
    """It answers 400, which would be permanent. The codes are botocore's own list: a new one must fail here."""
    response = {
        "Error": {"Code": code},
        "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {"retry-after": "4"}},
    }

    verdict = DEFAULT.of_error(botocore.exceptions.ClientError(response, "SendMessage"))

    assert verdict.kind in (Kind.RATE_LIMITED, Kind.TRANSIENT)
    assert (False, 4.0) == (verdict.is_unknown, verdict.retry_after_seconds)


async def test_a_real_rpc_that_found_a_server_leaves_its_outcome_unknown() -> None:
    """UNAVAILABLE from a server may come after the work; only one that was never reached is known."""

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("a", {"b": grpc.unary_unary_rpc_method_handler(handle)}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/a/b")(b"", timeout=5)
    finally:
        server.stop(None).wait()

    verdict = DEFAULT.of_error(raised.value)
    assert (Kind.TRANSIENT, True) == (verdict.kind, verdict.is_unknown)
