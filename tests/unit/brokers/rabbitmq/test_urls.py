"""AMQP URLs: every fault is named at once, no secret is shown, certificates are verified."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from spoolproof import limits
from spoolproof.brokers.rabbitmq.urls import parse_urls
from spoolproof.errors import SettingsError


def test_a_url_gives_everything_a_connection_needs() -> None:
    """Escapes are undone, the vhost loses its slash, the heartbeat is ours unless the URL says otherwise."""
    (address,) = parse_urls(["amqp://sh%40p:s%2Fcret@mq1:5673/a%2Fb?heartbeat=20"])

    assert ("mq1", 5673, "a/b", "sh@p", "s/cret", 20) == (
        address.host,
        address.port,
        address.vhost,
        address.user,
        address.password,
        address.heartbeat_seconds,
    )
    assert "amqp://sh%40p:***@mq1:5673/a%2Fb" == address.shown
    assert "cret" not in repr(address)
    assert address.tls is None


def test_defaults_are_rabbitmqs_own() -> None:
    """`amqp://host` is enough on a developer's machine."""
    (address,) = parse_urls(["amqp://localhost"])

    assert ("/", "guest", 5672, limits.HEARTBEAT_SECONDS) == (
        address.vhost,
        address.user,
        address.port,
        address.heartbeat_seconds,
    )


def test_amqps_verifies_the_certificate_and_its_name() -> None:
    """Encryption without verification protects from nobody."""
    (address,) = parse_urls(["amqps://mq1?server_hostname=broker.example"])

    assert address.tls is not None
    assert (ssl.CERT_REQUIRED, True) == (address.tls.verify_mode, address.tls.check_hostname)
    assert ("broker.example", 5671) == (address.server_hostname, address.port)


@pytest.mark.parametrize(
    ("url", "needle"),
    [
        ("http://mq1/", "scheme"),
        ("amqp:///v", "host"),
        ("amqp://mq1?timeout=3", "unknown query timeout"),
        ("amqp://mq1?heartbeat=0", "heartbeat='0'"),
        ("amqp://mq1?heartbeat=soon", "heartbeat='soon'"),
        ("amqp://mq1?cafile=/x", "amqps"),
        ("amqps://mq1?keyfile=/x", "certfile"),
        ("amqps://mq1?cafile=/does/not/exist.pem", "/does/not/exist.pem"),
        ("amqp://mq1:port/", "***"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_wrong(url: str, needle: str) -> None:
    """At start, in words, not as a connection that never comes."""
    with pytest.raises(SettingsError) as caught:
        parse_urls([url])

    assert needle in str(caught.value)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    """The file is named; the error is OpenSSL's."""
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")

    with pytest.raises(SettingsError) as caught:
        parse_urls([f"amqps://mq1?cafile={path}"])

    assert str(path) in str(caught.value)


def test_all_faults_come_at_once_and_without_passwords() -> None:
    """One start, one list."""
    with pytest.raises(SettingsError) as caught:
        parse_urls(["amqp://u:secret@a?x=1", "amqp://u:secret@b?y=1"])

    assert 2 == len(caught.value.faults)
    assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError, match="at least one"):
        parse_urls([])
