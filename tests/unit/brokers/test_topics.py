"""Topic patterns, beyond the table that the conformance suite runs on every broker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spoolproof.brokers.topics import topic_matches

_words = st.lists(st.sampled_from(["a", "b", "*", "#"]), max_size=6)
_keys = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)


def _by_definition(parts: list[str], words: list[str]) -> bool:
    if not parts:
        return not words
    if parts[0] == "#":
        return any(_by_definition(parts[1:], words[taken:]) for taken in range(len(words) + 1))
    return bool(words) and parts[0] in ("*", words[0]) and _by_definition(parts[1:], words[1:])


@given(parts=_words, words=_keys)
def test_patterns_match_as_defined(parts: list[str], words: list[str]) -> None:
    """The fast way agrees with the definition, written as it reads."""
    assert _by_definition(parts, words) == topic_matches(".".join(parts), ".".join(words))


def test_a_pattern_of_many_hashes_is_answered_at_once() -> None:
    """255 bytes of `#` must not stop the event loop: tried branch by branch this would not end."""
    hashes = ".".join(["#"] * 127)

    assert topic_matches(hashes, ".".join(["a"] * 128))
    assert not topic_matches(f"{hashes}.b", ".".join(["a"] * 128))
