"""Every error pika or a socket can end an attempt with has a meaning of its own."""

from __future__ import annotations

import socket
import ssl

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from spoolproof.brokers.rabbitmq.failure import failure_of
from spoolproof.errors import BrokerTooOld, BrokerUnavailable


def wrapped(error: BaseException) -> BaseException:
    """As pika's connection workflow hands it on."""
    connector = workflow.AMQPConnectorSocketConnectError(error)
    return exceptions.AMQPConnectionError(workflow.AMQPConnectionWorkflowFailed([connector]))


CASES = [
    (ConnectionRefusedError(111, "Connection refused"), "refused", False, False),
    (wrapped(ConnectionRefusedError(111, "Connection refused")), "refused", False, False),
    (TimeoutError(), "timeout", False, False),
    (socket.gaierror(-2, "Name or service not known"), "unreachable", False, False),
    (wrapped(OSError(113, "No route to host")), "unreachable", False, False),
    (OSError(24, "Too many open files"), "no_file_descriptors", False, False),
    (ssl.SSLCertVerificationError(1, "certificate verify failed"), "tls_failed", True, True),
    (exceptions.ProbableAuthenticationError("x"), "authentication_refused", True, True),
    (exceptions.AuthenticationError("PLAIN"), "authentication_refused", True, True),
    (exceptions.ConnectionClosedByBroker(403, "ACCESS_REFUSED"), "authentication_refused", True, True),
    (exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost"), "vhost_refused", True, True),
    (exceptions.ProbableAccessDeniedError("x"), "vhost_refused", True, True),
    (exceptions.IncompatibleProtocolError("x"), "protocol_refused", True, True),
    (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), "closed", True, False),
    (exceptions.StreamLostError("Transport indicated EOF"), "closed", True, False),
    (BrokerTooOld("RabbitMQ 3.8.9 is too old"), "too_old", True, True),
    (BrokerUnavailable("no answer"), "closed", True, False),
]


@pytest.mark.parametrize(("error", "outcome", "was_reached", "needs_operator"), CASES)
def test_an_error_says_what_happened_and_who_can_help(
    error: BaseException, outcome: str, was_reached: bool, needs_operator: bool
) -> None:
    """Whether to page somebody, and whether a TCP connect can tell that the broker is back."""
    failure = failure_of(error)

    assert (outcome, was_reached, needs_operator) == (failure.outcome, failure.was_reached, failure.needs_operator)
    assert failure.text
    assert "\n" not in failure.text


def test_no_connection_error_of_pika_is_unmapped() -> None:
    """Whatever the class, the attempt ends as a failure that is tried again."""
    for name, kind in vars(exceptions).items():
        if isinstance(kind, type) and issubclass(kind, exceptions.AMQPConnectionError):
            error = kind.__new__(kind)
            error.args = (404, f"from {name}")
            assert failure_of(error).outcome in {outcome for _, outcome, _, _ in CASES}, name
