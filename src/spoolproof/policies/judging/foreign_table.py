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
BUG: Meaning = (Kind.BUG, False)
BUG_AFTER_SENDING: Meaning = (Kind.BUG, True)

#: Qualified names, most derived first is what the MRO gives. A pool that was empty never sent anything.
CLASSES: Mapping[str, Meaning] = {
    "httpx.PoolTimeout": LOCAL,
    "httpx.ConnectTimeout": NOT_SENT,
    "httpx.ConnectError": NOT_SENT,
    "httpx.TimeoutException": TIMED_OUT,
    "httpx.NetworkError": LOST,
    "httpx.LocalProtocolError": BUG,
    "httpx.ProtocolError": LOST,
    "httpx.ProxyError": NOT_SENT,
    "httpx.UnsupportedProtocol": BUG,
    "httpx.InvalidURL": BUG,
    "aiohttp.client_exceptions.ConnectionTimeoutError": NOT_SENT,
    "aiohttp.client_exceptions.ServerTimeoutError": TIMED_OUT,
    "aiohttp.client_exceptions.ClientConnectorError": NOT_SENT,
    "aiohttp.client_exceptions.ServerDisconnectedError": LOST,
    "aiohttp.client_exceptions.ClientOSError": LOST,
    "aiohttp.client_exceptions.ClientPayloadError": LOST,
    "aiohttp.client_exceptions.ClientConnectionError": LOST,
    "aiohttp.client_exceptions.ServerFingerprintMismatch": NOT_SENT,
    "aiohttp.client_exceptions.InvalidUrlRedirectClientError": BUG_AFTER_SENDING,
    "aiohttp.client_exceptions.InvalidURL": BUG,
    "aiohttp.client_exceptions.NonHttpUrlRedirectClientError": BUG_AFTER_SENDING,
    "aiohttp.client_exceptions.NonHttpUrlClientError": BUG,
    "asyncio.exceptions.IncompleteReadError": LOST,
    "http.client.BadStatusLine": LOST,
    "http.client.IncompleteRead": LOST,
    "requests.exceptions.ConnectTimeout": NOT_SENT,
    "requests.exceptions.Timeout": TIMED_OUT,
    "requests.exceptions.SSLError": LOST,
    "requests.exceptions.ProxyError": NOT_SENT,
    "requests.exceptions.ConnectionError": LOST,
    "requests.exceptions.ChunkedEncodingError": LOST,
    "requests.exceptions.RetryError": LOST,
    "requests.exceptions.MissingSchema": BUG,
    "urllib.error.URLError": BUG_AFTER_SENDING,
    "urllib3.exceptions.EmptyPoolError": LOCAL,
    "urllib3.exceptions.ConnectTimeoutError": NOT_SENT,
    "urllib3.exceptions.NewConnectionError": NOT_SENT,
    "urllib3.exceptions.ReadTimeoutError": TIMED_OUT,
    "urllib3.exceptions.TimeoutError": TIMED_OUT,
    "urllib3.exceptions.ClosedPoolError": LOCAL,
    "urllib3.exceptions.MaxRetryError": LOST,
    "urllib3.exceptions.ProtocolError": LOST,
    "urllib3.exceptions.ProxyError": NOT_SENT,
    "urllib3.exceptions.ResponseError": LOST,
    "urllib3.exceptions.SSLError": LOST,
    "urllib3.exceptions.LocationValueError": BUG,
    "redis.exceptions.MaxConnectionsError": LOCAL,
    "redis.exceptions.BusyLoadingError": NOT_SENT,
    "redis.exceptions.AuthenticationError": NOT_SENT,
    "redis.exceptions.ReadOnlyError": NOT_SENT,
    "redis.exceptions.AuthorizationError": NOT_SENT,
    "redis.exceptions.ExternalAuthProviderError": NOT_SENT,
    "redis.exceptions.ClusterDownError": NOT_SENT,
    "redis.exceptions.AskError": NOT_SENT,
    "redis.exceptions.TryAgainError": NOT_SENT,
    "redis.exceptions.WatchError": NOT_SENT,
    "redis.exceptions.SlotNotCoveredError": NOT_SENT,
    "redis.exceptions.OutOfMemoryError": OVERLOADED,
    "redis.exceptions.InvalidResponse": LOST,
    "redis.exceptions.DataError": BUG,
    "redis.exceptions.TimeoutError": TIMED_OUT,
    "redis.exceptions.ConnectionError": LOST,
    "redis.exceptions.ResponseError": REFUSED,
    "asyncpg.exceptions._base.DataError": REFUSED,
    "asyncpg.exceptions._base.InterfaceError": BUG,
    "asyncpg.exceptions._base.TargetServerAttributeNotMatched": NOT_SENT,
    "pika.exceptions.StreamLostError": LOST,
    "pika.exceptions.ConnectionClosed": LOST,
    "pika.exceptions.ConnectionBlockedTimeout": LOST,
    "pika.exceptions.AMQPHeartbeatTimeout": LOST,
    "pika.exceptions.AMQPConnectionError": NOT_SENT,
    "pika.exceptions.ChannelWrongStateError": NOT_SENT,
    "pika.exceptions.UnroutableError": NOT_SENT,
    "pika.exceptions.NackError": OVERLOADED,
    "pika.exceptions.DuplicateConsumerTag": BUG,
    "pika.exceptions.InvalidChannelNumber": BUG,
    "pika.exceptions.MethodNotImplemented": BUG,
    "pika.exceptions.ShortStringTooLong": BUG,
    "pika.exceptions.UnsupportedAMQPFieldException": BUG,
    "pika.exceptions.AMQPChannelError": LOST,
    "pika.exceptions.AMQPError": LOST,
    "botocore.exceptions.ConnectTimeoutError": NOT_SENT,
    "botocore.exceptions.EndpointConnectionError": NOT_SENT,
    "botocore.exceptions.ReadTimeoutError": TIMED_OUT,
    "botocore.exceptions.ConnectionClosedError": LOST,
    "botocore.exceptions.HTTPClientError": LOST,
    "botocore.exceptions.IncompleteReadError": LOST,
    "botocore.exceptions.ProxyConnectionError": NOT_SENT,
    "botocore.exceptions.SSLError": LOST,
    "botocore.exceptions.ConnectionError": LOST,
    "botocore.exceptions.NoCredentialsError": NOT_SENT,
    "botocore.exceptions.PartialCredentialsError": NOT_SENT,
    "botocore.exceptions.CredentialRetrievalError": NOT_SENT,
    "botocore.exceptions.TokenRetrievalError": NOT_SENT,
    "botocore.exceptions.UnauthorizedSSOTokenError": NOT_SENT,
    "botocore.exceptions.ParamValidationError": BUG,
    "sqlalchemy.exc.TimeoutError": LOCAL,
}

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
AWS_CODES: Mapping[str, Meaning] = {
    **dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "EC2ThrottledException",
            "LimitExceededException",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
        ),
        (Kind.RATE_LIMITED, False),
    ),
    "ExpiredToken": NOT_SENT,
    "ExpiredTokenException": NOT_SENT,
    "PriorRequestNotComplete": NOT_SENT,
    "RequestTimeout": NOT_SENT,
    "TransactionInProgressException": NOT_SENT,
}
GRPC: Mapping[str, Meaning] = {
    "CANCELLED": LOST,
    "UNAVAILABLE": LOST,
    "DEADLINE_EXCEEDED": TIMED_OUT,
    "RESOURCE_EXHAUSTED": (Kind.RATE_LIMITED, False),
    "ABORTED": NOT_SENT,
    "INTERNAL": LOST,
    "UNKNOWN": LOST,
    "UNAUTHENTICATED": NOT_SENT,
}

#: How an RPC that found no server begins its details; any other UNAVAILABLE may have been worked on.
GRPC_NOT_SENT = ("failed to connect to all addresses", "DNS resolution failed")
