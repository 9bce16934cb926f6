"""Foreign errors become ours here and nowhere else in this adapter."""

from __future__ import annotations

import errno
import ssl
import struct
from dataclasses import dataclass

from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from spoolproof.errors import BrokerTooOld, BrokerUnavailable

ENCODE_ERRORS = (
    struct.error,
    AttributeError,
    OverflowError,
    TypeError,
    ValueError,  # UnicodeEncodeError among them
)
"""What routing and encoding raise, before anything is written, for a message the protocol cannot carry."""

WRONG_STATE_ERRORS = (exceptions.ChannelWrongStateError, exceptions.ConnectionWrongStateError)
"""The channel or its connection is gone."""

_CONNECTION_FORCED, _ACCESS_REFUSED, _NOT_ALLOWED = 320, 403, 530


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection attempt failed. outcome: one word for the log. text: one line, no secret.

    was_reached: something accepted the TCP connection. needs_operator: trying again alone will not help.
    """

    outcome: str
    text: str
    was_reached: bool = True
    needs_operator: bool = False


def failure_of(error: BaseException) -> Failure:
    """Return what an attempt's error means."""
    cause = _innermost(error)
    text = one_line(cause)
    match cause:
        case BrokerTooOld():
            return Failure("too_old", str(cause), needs_operator=True)
        case exceptions.ProbableAuthenticationError() | exceptions.AuthenticationError():
            return Failure("authentication_refused", text, needs_operator=True)
        case exceptions.ProbableAccessDeniedError():
            return Failure("vhost_refused", text, needs_operator=True)
        case exceptions.ConnectionClosedByBroker(reply_code=code) if code in (_ACCESS_REFUSED, _NOT_ALLOWED):
            return Failure("authentication_refused" if code == _ACCESS_REFUSED else "vhost_refused", text, True, True)
        case ssl.SSLError():
            return Failure("tls_failed", text, needs_operator=True)
        case TimeoutError() | workflow.AMQPConnectorStackTimeout():
            return Failure("timeout", text, was_reached=False)
        case ConnectionRefusedError():
            return Failure("refused", text, was_reached=False)
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return Failure("no_file_descriptors", text, was_reached=False)
        case OSError():
            return Failure("unreachable", text, was_reached=False)  # no route, no such host, reset while connecting
        case exceptions.IncompatibleProtocolError() | exceptions.ProtocolVersionMismatch():
            return Failure("protocol_refused", text, needs_operator=True)
        case _:
            return Failure("closed", text)


def end_code(error: BaseException) -> int | None:
    """Return the code with which the broker ended a channel or connection, 0 if it just cut the line.

    None when that says nothing of what was on its way: an operator closed it, it was silent, or it was our doing.
    """
    match error:
        case exceptions.ConnectionClosedByBroker(reply_code=code) | exceptions.ChannelClosedByBroker(reply_code=code):
            return None if code == _CONNECTION_FORCED else int(code)
        case exceptions.StreamLostError():
            return 0
        case _:
            return None


def one_line(error: BaseException) -> str:
    """Return the error's class and text without line breaks, at most 300 characters."""
    if isinstance(error, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        text = f"{error.reply_code} {error.reply_text}"
    else:
        text = str(error) or repr(error)
        text = text if isinstance(error, BrokerUnavailable) else f"{type(error).__name__}: {text}"
    return " ".join(text.split())[:300]


def _innermost(error: BaseException) -> BaseException:
    """Unwrap what pika's connection workflow wraps around the one error that matters."""
    while True:
        inner: BaseException | None = None
        if isinstance(error, workflow.AMQPConnectionWorkflowFailed) and error.exceptions:
            inner = error.exceptions[-1]
        elif isinstance(error, workflow.AMQPConnectorPhaseErrorBase):
            inner = error.exception
        elif type(error) is exceptions.AMQPConnectionError and error.args and isinstance(error.args[0], BaseException):
            inner = error.args[0]
        if inner is None:
            return error
        error = inner
