"""The two clients of a process, and what their errors mean: foreign errors become ours here and nowhere else.

botocore's own retries are off: back-off is ours, and a publish that was repeated unseen would be counted wrong.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Any, Final

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import exceptions

from spoolproof import limits
from spoolproof.brokers.sqs.address import Address
from spoolproof.caught import error_line

_REQUESTS_MAX = 256  #: at once; every subscription has one open nearly all the time


class Trouble(StrEnum):
    """away: no answer, or 5xx. throttled: too much asked. credentials: nobody knows us. denied: not this, not now.
    missing: no such queue or topic. wrong: this very request is refused each time."""

    AWAY = "away"
    THROTTLED = "throttled"
    CREDENTIALS = "credentials"
    DENIED = "denied"
    MISSING = "missing"
    WRONG = "wrong"


_CODES: Final = {
    Trouble.MISSING: ("NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException"),
    Trouble.THROTTLED: (
        *("RequestThrottled", "Throttling", "ThrottlingException", "Throttled", "ThrottledException", "KMSThrottling"),
        *(
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "OverLimit",
            "SlowDown",
            "KmsThrottled",
            "ConcurrentAccess",
        ),
    ),
    Trouble.CREDENTIALS: (
        *("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidSignatureException"),
        *("ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "MissingAuthenticationToken", "AuthFailure"),
        *("InvalidSecurity", "RequestExpired", "OptInRequired", "IncompleteSignature"),
    ),
    Trouble.DENIED: ("AccessDenied", "AccessDeniedException", "AuthorizationError", "QueueDeletedRecently"),
    Trouble.AWAY: ("InternalError", "InternalFailure", "ServiceUnavailable", "InternalServerError"),
}
_UNREACHABLE: Final = (
    exceptions.EndpointConnectionError,
    exceptions.ConnectTimeoutError,
    exceptions.ConnectionClosedError,
    exceptions.ProxyConnectionError,
)
_TROUBLES: Final = {code: trouble for trouble, codes in _CODES.items() for code in codes}


class SqsError(Exception):
    """A request that failed. text: one line, no secret. was_reached: somebody took the connection."""

    def __init__(self, trouble: Trouble, text: str, *, was_reached: bool = True) -> None:
        self.trouble = trouble
        self.was_reached = was_reached
        super().__init__(" ".join(text.split())[:300])


def trouble_of(code: str, status: int = 400) -> Trouble:
    """Return what an error code and the status of its answer mean."""
    name = code.rpartition(".")[2]
    if name in _TROUBLES:
        return _TROUBLES[name]
    if status >= 500 or status == 408:
        return Trouble.AWAY
    if status == 429:
        return Trouble.THROTTLED
    if status == 403 or code.lower().startswith("kms"):
        return Trouble.DENIED
    return Trouble.WRONG


def error_of(error: Exception) -> SqsError:
    """Return ours for one of botocore or of what is below it."""
    if isinstance(error, SqsError):
        return error
    if isinstance(error, exceptions.ClientError):
        said = error.response.get("Error", {})
        code, status = str(said.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        return SqsError(trouble_of(code, status), f"{code}: {said.get('Message', '')} ({error.operation_name})")
    credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
    )
    if isinstance(error, credentials):
        return SqsError(Trouble.CREDENTIALS, error_line(error))
    if isinstance(error, exceptions.ParamValidationError | exceptions.InvalidRegionError):
        return SqsError(Trouble.WRONG, error_line(error))
    return SqsError(Trouble.AWAY, error_line(error), was_reached=not isinstance(error, _UNREACHABLE))


class Clients:
    """Asks SQS and SNS."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}

    async def open(self) -> None:
        """Make the clients, if there are none. Nothing is asked yet. Raises SqsError."""
        session = get_session()
        try:
            for service in ("sqs", "sns"):
                if service not in self._clients:
                    client = session.create_client(service, **self._arguments())
                    self._clients[service] = await self._stack.enter_async_context(client)
        except (exceptions.BotoCoreError, OSError, ValueError) as error:  # ValueError: an endpoint or region
            raise error_of(error) from error

    def _arguments(self) -> dict[str, Any]:
        address = self._address
        config = AioConfig(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=limits.CONNECT_SECONDS,
            read_timeout=limits.CONFIRM_SECONDS + address.wait_seconds,
            max_pool_connections=_REQUESTS_MAX,
        )
        return {
            "region_name": address.region,
            "endpoint_url": address.endpoint,
            "aws_access_key_id": address.key_id,
            "aws_secret_access_key": address.secret,
            "config": config,
        }

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        self._clients = {}
        await self._stack.aclose()

    async def sqs(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Ask SQS. Raises SqsError."""
        return await self._ask("sqs", operation, arguments)

    async def sns(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Ask SNS. Raises SqsError."""
        return await self._ask("sns", operation, arguments)

    async def _ask(self, service: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        client = self._clients.get(service)
        if client is None:
            raise SqsError(Trouble.AWAY, "not connected")
        try:
            async with asyncio.timeout(limits.CONFIRM_SECONDS + arguments.get("WaitTimeSeconds", 0)):
                answer: dict[str, Any] = await getattr(client, operation)(**arguments)
        except (exceptions.BotoCoreError, exceptions.ClientError, aiohttp.ClientError, OSError, RuntimeError) as error:
            raise error_of(error) from error  # RuntimeError: a session that is being closed
        return answer
