"""Signatures: what we sign another library verifies, what another signs we verify, and nothing else passes."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from spoolproof.clock import SystemClock
from spoolproof.errors import EncodeError, InvalidEndpoint, InvalidSignature
from spoolproof.testing.conformance._messages import make_message
from spoolproof.webhooks import verify
from spoolproof.webhooks.request import body_of, headers_of, id_of
from spoolproof.webhooks.signature import key_of, new_secret

CLOCK = SystemClock()
SECRETS = [new_secret(), new_secret()]
MESSAGE = make_message("order.placed", body='{"total": 1.50, "name": "Zoë"}'.encode())
BODY = body_of(MESSAGE)
HEADERS = headers_of(MESSAGE, BODY, [key_of(secret) for secret in SECRETS], CLOCK.now())


def test_each_secret_verifies_with_another_library_and_with_ours() -> None:
    """Two sign while one is rotated; a receiver knows either."""
    for secret in SECRETS:
        assert {"total": 1.5, "name": "Zoë"} == Webhook(secret).verify(BODY, HEADERS)["data"]
        assert MESSAGE.id == verify(HEADERS, BODY, secret)
    assert MESSAGE.id == verify(
        {name.title(): value for name, value in HEADERS.items()}, BODY, [new_secret(), *SECRETS]
    )


def test_what_another_library_signs_is_verified() -> None:
    """The receiver's side, for senders that are not ours."""
    now = CLOCK.now()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": "v1a,AAAA " + Webhook(SECRETS[0]).sign("msg_1", now, "{}"),
    }

    assert "msg_1" == verify(headers, b"{}", SECRETS[0])


def test_the_body_is_the_payload_as_it_was_published() -> None:
    """A number that is read and written again is another number to a signature."""
    assert BODY.endswith(b',"data":{"total": 1.50, "name": "Zo\xc3\xab"}}')
    assert BODY.startswith(b'{"type":"order.placed","timestamp":"')
    with pytest.raises(EncodeError, match="not JSON"):
        body_of(make_message(body=b"\xff\x00"))


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", ["", "x", "1", "v1,", "v1,AAAA", "9" * 400, "\u0661", "-1"])
def test_a_changed_header_is_refused(name: str, value: str) -> None:
    """Whatever it holds: nothing but InvalidSignature is raised."""
    with pytest.raises(InvalidSignature):
        verify({**HEADERS, name: value}, BODY, SECRETS)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused(place: int, by: int) -> None:
    """Any one."""
    changed = bytearray(BODY)
    changed[place] ^= by
    with pytest.raises(InvalidSignature, match="changed body"):
        verify(HEADERS, bytes(changed), SECRETS)


def test_what_is_sent_late_or_again_is_refused() -> None:
    """A webhook that somebody recorded is worth nothing an hour later."""
    for ago in (-400, 400):
        headers = headers_of(MESSAGE, BODY, [key_of(SECRETS[0])], CLOCK.now() - timedelta(seconds=ago))
        with pytest.raises(InvalidSignature, match="300 s away"):
            verify(headers, BODY, SECRETS)
        assert MESSAGE.id == verify(headers, BODY, SECRETS, timedelta(seconds=600))


def test_an_id_that_would_end_too_soon_is_sent_as_another() -> None:
    """`a.1` and `b` would be signed like `a` and `1.b`; the same message has the same id each time."""
    assert MESSAGE.id == id_of(MESSAGE)
    for id in ("a.1", "a b", "a\r\nx: y", "ä"):
        sent = id_of(make_message(id=id))
        assert 36 == len(sent)
        assert sent == id_of(make_message(id=id))


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_AAAA", "secret", "whsec_" + base64.b64encode(b"x" * 65).decode()]
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    """An error ends in a log."""
    with pytest.raises(InvalidEndpoint) as caught:
        key_of(secret)
    assert "whsec_…" in str(caught.value)
    assert "AAAA" not in str(caught.value)
