"""What is masked, what is not, and that nothing can be made of it that raises or shows more the second time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.telemetry.redaction import is_secret, masked, masked_body, masked_text

CARD = "4111 1111 1111 1111"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig-nature_x"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIE+planted\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "name",
    [
        *("password", "userPassword", "DB_PASSWD", "client-secret", "accessToken", "api_key", "apiKey", "X-Api-Key"),
        *("Authorization", "Set-Cookie", "session_id", "aws.credentials", "private_key", "PIN", "card.pan", "IBAN"),
    ],
)
def test_a_key_is_secret_by_its_words(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["shipping", "spinner", "company", "key", "tokenizer", "keyboard", "expand", "panel"])
def test_a_word_within_a_word_is_none(name: str) -> None:
    """`shipping` is not `pin`."""
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://sales:pl/ant@ed@rabbit-1:5672/prod is away", "amqp://sales:***@rabbit-1:5672/prod is away"),
        ("GET https://a.test/x?token=planted&page=2", "GET https://a.test/x?token=***&page=2"),
        (f"said {JWT}.", "said ***."),
        (f"key:\n{PEM}\nend", "key:\n***\nend"),
        (f"paid with {CARD}", "paid with ***"),
        ("paid with 4111111111111111.", "paid with ***."),
        ("order 4111111111111112", "order 4111111111111112"),  # no card has this check digit
        ("at 1732240000000 ms", "at 1732240000000 ms"),
        ("Authorization: Bearer planted planted", "Authorization: ***"),
        ("{'password': 'pla nted', 'user': 'ann'}", "{'password': '***', 'user': 'ann'}"),
        ('error="no login: password=planted" queue=mail', 'error="no login: password=***" queue=mail'),
        ("session: closed, signature did not match", "session: closed, signature did not match"),
        ("queue=shop.mail kind=outbox lost=2", "queue=shop.mail kind=outbox lost=2"),
    ],
)
def test_a_text_loses_its_secrets_alone(text: str, shown: str) -> None:
    assert shown == masked_text(text)


def test_a_document_is_masked_at_any_depth() -> None:
    """Also where a text in it is a document again, as the body of a message is."""
    body = json.dumps({"order": {"apiKey": "planted", "is_token": True, "lines": [{"pan": 4111111111111111}]}})
    document = {"headers": {"X-Auth-Token": "planted", "type": "order"}, "body": body, "attempts": 3, "cvv": None}

    shown: Any = masked(document)

    assert {"X-Auth-Token": "***", "type": "order"} == shown["headers"]
    assert {"order": {"apiKey": "***", "is_token": True, "lines": [{"pan": "***"}]}} == json.loads(shown["body"])
    assert (3, None) == (shown["attempts"], shown["cvv"])
    assert "planted" == masked({"token": "planted"}, frozenset({"token"}))["token"]  # type: ignore[index]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.lists(
    st.sampled_from([
        *("password", "=", ":", " ", "'", '"', "token", "Cookie", "Bearer ", "://", "u", "@", "&", "\n", "\\", "{"),
        *("error=", JWT, CARD, PEM, PEM[:40], "4111111111111111", "-", ".", "***", "x1"),
    ]),
    max_size=14,
).map("".join)  # fmt: skip


@given(VALUES | PIECES)
def test_it_never_raises_and_masks_once(value: object) -> None:
    """A list that is masked by the function and by the command shows what one mask shows."""
    once = masked(value)
    assert once == masked(once)


@given(PIECES)
def test_a_log_line_is_masked_once(text: str) -> None:
    once = masked_text(text)
    assert once == masked_text(once)
    assert masked_body(masked_body(text)) == masked_body(text)


@given(PIECES, PIECES)
def test_what_is_certain_is_gone_wherever_it_stands(before: str, after: str) -> None:
    """In whatever text it stands, as a word of its own."""
    for secret in (JWT, "pass://shop:planted-in-url@host"):
        shown = masked_text(f"{before} {secret} {after}")
        assert "sig-nature_x" not in shown.replace(before, "").replace(after, "") or JWT in before + after
        assert "planted-in-url" not in shown


def test_what_cannot_be_looked_at_is_masked() -> None:
    class Hostile(dict[str, object]):
        def items(self) -> Any:
            raise RuntimeError("no")

    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    assert "***" == masked(Hostile(a=1))
    assert "***" in str(masked(deep))
