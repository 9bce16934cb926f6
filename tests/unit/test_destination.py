"""Where a message goes: text in columns and at users, a value everywhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.destination import EVENTS, Kind, back_after, destination_of, to_queue


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("events", Kind.EVENTS, ""),
        ("queue:shop.orders", Kind.QUEUE, "shop.orders"),
        ("queue:a:b", Kind.QUEUE, "a:b"),
        ("exchange:legacy", Kind.EXCHANGE, "legacy"),
        ("delay:300", Kind.DELAY, "300"),
        ("delay:soon", Kind.UNKNOWN, ""),
        ("delay:²", Kind.UNKNOWN, ""),
        ("queue:", Kind.UNKNOWN, ""),
        ("events:x", Kind.UNKNOWN, ""),
        ("unknown:x", Kind.UNKNOWN, ""),
    ],
)
def test_a_text_names_one_destination(text: str, kind: Kind, name: str) -> None:
    """It is split in one place; a second one would read a `queue:` differently."""
    assert (kind, name) == (destination_of(text).kind, destination_of(text).name)


def test_what_we_address_ourselves_is_read_back_the_same() -> None:
    """A replay and a retry copy go through columns and brokers as text."""
    assert ("queue:shop.orders", "delay:300", "events") == (
        str(to_queue("shop.orders")),
        str(back_after(300)),
        str(EVENTS),
    )


@given(st.text() | st.sampled_from(["events", "queue:", "delay:"]).flatmap(lambda kind: st.text().map(kind.__add__)))
def test_every_text_is_kept_as_it_was(text: str) -> None:
    """A row of a newer release must not change by being read."""
    assert text == str(destination_of(text))
