"""Where a message goes: text in columns and at users, a value everywhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.destination import EVENTS, Destination, Kind, back_after, destination_of, to_queue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("events", EVENTS),
        ("queue:shop.orders", to_queue("shop.orders")),
        ("queue:a:b", to_queue("a:b")),
        ("exchange:legacy", Destination(Kind.EXCHANGE, "legacy")),
        ("delay:300", back_after(300)),
        ("delay:soon", Destination(Kind.UNKNOWN, "delay:soon")),
        ("delay:²", Destination(Kind.UNKNOWN, "delay:²")),
        ("queue:", Destination(Kind.UNKNOWN, "queue:")),
        ("events:x", Destination(Kind.UNKNOWN, "events:x")),
        ("unknown:x", Destination(Kind.UNKNOWN, "unknown:x")),
    ],
)
def test_a_text_names_one_destination(text: str, expected: Destination) -> None:
    """It is split in one place; a second one would read a `queue:` differently."""
    assert expected == destination_of(text)


@given(st.text() | st.sampled_from(["events", "queue:", "delay:"]).flatmap(lambda kind: st.text().map(kind.__add__)))
def test_every_text_is_kept_as_it_was(text: str) -> None:
    """A row of a newer release must not change by being read."""
    assert text == str(destination_of(text))
