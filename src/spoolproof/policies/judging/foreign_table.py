"""What the exception classes, codes and texts of other libraries mean. Data only; `foreign` reads it.

Add a row together with a case in the tests, where the library itself raises the error: names change between releases.
"""

from __future__ import annotations

from collections.abc import Mapping

from spoolproof.policies.judging.verdict import Kind

Meaning = tuple[Kind, bool]  #: what it is, and whether the effect may have happened
NOT_SENT: Meaning = (Kind.TRANSIENT, False)
LOST: Meaning = (Kind.TRANSIENT, True)
TIMED_OUT: Meaning = (Kind.TIMEOUT, True)
LOCAL: Meaning = (Kind.LOCAL, False)
REFUSED: Meaning = (Kind.PERMANENT, False)
OVERLOADED: Meaning = (Kind.OVERLOADED, False)
RATE_LIMITED: Meaning = (Kind.RATE_LIMITED, False)
BUG: Meaning = (Kind.BUG, False)
BUG_AFTER_SENDING: Meaning = (Kind.BUG, True)

#: Class names by module and meaning; of several the most derived counts. A pool that was empty never sent anything.
_NAMES: Mapping[str, Mapping[Meaning, str]] = {
    "httpx": {
        LOCAL: "PoolTimeout",
        NOT_SENT: "ConnectTimeout ConnectError ProxyError",
        TIMED_OUT: "TimeoutException",
        LOST: "NetworkError ProtocolError",
        BUG: "LocalProtocolError UnsupportedProtocol InvalidURL",
    },
    "aiohttp.client_exceptions": {
        NOT_SENT: "ConnectionTimeoutError ClientConnectorError ServerFingerprintMismatch",
        TIMED_OUT: "ServerTimeoutError",
        LOST: "ServerDisconnectedError ClientOSError ClientPayloadError ClientConnectionError",
        BUG_AFTER_SENDING: "InvalidUrlRedirectClientError NonHttpUrlRedirectClientError",
        BUG: "InvalidURL NonHttpUrlClientError",
    },
    "asyncio.exceptions": {LOST: "IncompleteReadError"},
    "http.client": {LOST: "BadStatusLine IncompleteRead"},
    "requests.exceptions": {
        NOT_SENT: "ConnectTimeout ProxyError",
        TIMED_OUT: "Timeout",
        LOST: "SSLError ConnectionError ChunkedEncodingError RetryError",
        BUG: "MissingSchema",
    },
    "urllib.error": {BUG_AFTER_SENDING: "URLError"},
    "urllib3.exceptions": {
        LOCAL: "EmptyPoolError ClosedPoolError",
        NOT_SENT: "ConnectTimeoutError NewConnectionError ProxyError",
        TIMED_OUT: "ReadTimeoutError TimeoutError",
        LOST: "MaxRetryError ProtocolError ResponseError SSLError",
        BUG: "LocationValueError",
    },
    "redis.exceptions": {
        LOCAL: "MaxConnectionsError",
        NOT_SENT: (
            "BusyLoadingError AuthenticationError ReadOnlyError AuthorizationError ExternalAuthProviderError "
            "ClusterDownError AskError TryAgainError WatchError SlotNotCoveredError"
        ),
        OVERLOADED: "OutOfMemoryError",
        LOST: "InvalidResponse ConnectionError",
        BUG: "DataError",
        TIMED_OUT: "TimeoutError",
        REFUSED: "ResponseError",
    },
    "asyncpg.exceptions._base": {
        REFUSED: "DataError",
        BUG: "InterfaceError",
        NOT_SENT: "TargetServerAttributeNotMatched",
    },
    "pika.exceptions": {
        LOST: (
            "StreamLostError ConnectionClosed ConnectionBlockedTimeout AMQPHeartbeatTimeout AMQPChannelError AMQPError"
        ),
        NOT_SENT: "AMQPConnectionError ChannelWrongStateError UnroutableError",
        OVERLOADED: "NackError",
        BUG: (
            "DuplicateConsumerTag InvalidChannelNumber MethodNotImplemented ShortStringTooLong "
            "UnsupportedAMQPFieldException"
        ),
    },
    "botocore.exceptions": {
        NOT_SENT: (
            "ConnectTimeoutError EndpointConnectionError ProxyConnectionError NoCredentialsError "
            "PartialCredentialsError CredentialRetrievalError TokenRetrievalError UnauthorizedSSOTokenError"
        ),
        TIMED_OUT: "ReadTimeoutError",
        LOST: "ConnectionClosedError HTTPClientError IncompleteReadError SSLError ConnectionError",
        BUG: "ParamValidationError",
    },
    "sqlalchemy.exc": {LOCAL: "TimeoutError"},
}
CLASSES: Mapping[str, Meaning] = {
    f"{module}.{name}": meaning
    for module, rows in _NAMES.items()
    for meaning, names in rows.items()
    for name in names.split()
}
"""What qualified names mean."""

#: Classes that say less than the error they carry.
CARRIERS = frozenset(
    {
        "botocore.exceptions.SSLError",
        "requests.exceptions.ConnectTimeout",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.SSLError",
        "urllib.error.URLError",
        "urllib3.exceptions.MaxRetryError",
        "urllib3.exceptions.SSLError",
    }
)

#: Classes of PEP 249, in every database driver under the same names: it has answered, and will answer the same again.
REFUSED_BY_DATABASE = frozenset({"DataError", "IntegrityError", "NotSupportedError", "ProgrammingError"})

#: Texts that say what a class does not: the class, and what its message contains.
TEXTS: tuple[tuple[str, str, Meaning], ...] = (
    ("redis.exceptions.ConnectionError", "No connection available", LOCAL),
    ("redis.exceptions.ResponseError", "MISCONF ", NOT_SENT),
    ("redis.exceptions.ResponseError", "NOREPLICAS ", NOT_SENT),
    ("redis.exceptions.ResponseError", "BUSY ", NOT_SENT),
    ("asyncpg.exceptions._base.InterfaceError", "clos", NOT_SENT),
    ("asyncpg.exceptions._base.InterfaceError", "released back to the pool", NOT_SENT),
)
_THROTTLED = (
    "BandwidthLimitExceeded EC2ThrottledException LimitExceededException ProvisionedThroughputExceededException "
    "RequestLimitExceeded RequestThrottled RequestThrottledException SlowDown ThrottledException Throttling "
    "ThrottlingException TooManyRequestsException"
)
_TO_TRY_AGAIN = (
    "ExpiredToken ExpiredTokenException PriorRequestNotComplete RequestTimeout TransactionInProgressException"
)
AWS_CODES: Mapping[str, Meaning] = {
    **dict.fromkeys(_THROTTLED.split(), RATE_LIMITED),
    **dict.fromkeys(_TO_TRY_AGAIN.split(), NOT_SENT),
}
GRPC: Mapping[str, Meaning] = {
    "CANCELLED": LOST,
    "UNAVAILABLE": LOST,
    "DEADLINE_EXCEEDED": TIMED_OUT,
    "RESOURCE_EXHAUSTED": RATE_LIMITED,
    "ABORTED": NOT_SENT,
    "INTERNAL": LOST,
    "UNKNOWN": LOST,
    "UNAUTHENTICATED": NOT_SENT,
}

#: How an RPC that found no server begins its details; any other UNAVAILABLE may have been worked on.
GRPC_NOT_SENT = ("failed to connect to all addresses", "DNS resolution failed")
