"""Names and URLs of SQS: what they become, and what is refused."""

from __future__ import annotations

import re

import pytest

from spoolproof.brokers.sqs.address import parse_url
from spoolproof.brokers.sqs.names import Names
from spoolproof.errors import SettingsError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop.orders", "shop-orders"),
        ("shop.orders.dead", "shop-orders-dead"),
        ("shop.orders.fifo", "shop-orders.fifo"),
        ("shop.orders.fifo.dead", "shop-orders-dead.fifo"),
        ("Shop_1-a", "Shop_1-a"),
    ],
)
def test_a_dot_becomes_a_dash_and_fifo_stays_at_the_end(name: str, expected: str) -> None:
    """A dead letter queue of a FIFO queue must be one too."""
    assert expected == Names("").queue(name)
    assert f"p-{expected}" == Names("p-").queue(name)


@pytest.mark.parametrize("name", ["q" * 300, "q" * 300 + ".fifo", "früh stück", "q" * 76 + ".fifo.dead"])
def test_what_does_not_fit_is_cut_and_stays_itself(name: str) -> None:
    """Two long names that differ at their end are two queues."""
    names = Names("")

    assert re.fullmatch(r"[A-Za-z0-9_-]{1,75}(\.fifo)?|[A-Za-z0-9_-]{1,80}", names.queue(name))
    assert names.queue(name) != names.queue("x" + name)
    assert names.topic("e", name, is_fifo=False) != names.topic("e", name + "!", is_fifo=False)


def test_two_queues_that_would_be_one_are_refused() -> None:
    """Each would take the other's messages."""
    with pytest.raises(SettingsError, match=r"'a\.b' and 'a-b' are both 'a-b'"):
        Names("").check(["a.b", "a-b"])


def test_an_exchange_without_key_is_a_topic_of_its_own() -> None:
    """So that topics of others can be named as they are."""
    assert ("legacy", "legacy-x.fifo") == (
        Names("").topic("legacy", "", is_fifo=False),
        Names("").topic("legacy", "x", is_fifo=True),
    )


def test_a_url_says_where_and_as_whom() -> None:
    """Escapes are undone; what is shown has no secret."""
    address = parse_url("sqs://KEY:a%2Fb@eu-west-1?endpoint=http%3A%2F%2F127.0.0.1%3A5000&prefix=t-&wait=20")

    assert ("eu-west-1", "http://127.0.0.1:5000", "KEY", "a/b", "t-", 20) == (
        address.region,
        address.endpoint,
        address.key_id,
        address.secret,
        address.prefix,
        address.wait_seconds,
    )
    assert "a/b" not in repr(address)
    assert "sqs://KEY:***@eu-west-1" == address.shown


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqs://eu-west-1:80", "names a region"),
        ("sqs://eu-west-1/queue", "names a region"),
        ("sqs://KEY@eu-west-1", "half of a key"),
        ("sqs://eu-west-1?endpint=http://x", "unknown query endpint"),
        ("sqs://eu-west-1?endpoint=ftp://x", "is not http"),
        ("sqs://eu-west-1?prefix=a.b", "prefix="),
        ("sqs://eu-west-1?wait=0", "wait="),
    ],
)
def test_a_wrong_url_says_what_to_write(url: str, says: str) -> None:
    """Before anything is opened."""
    with pytest.raises(SettingsError, match=says):
        parse_url(url)
