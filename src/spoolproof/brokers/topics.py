"""Which binding patterns a routing key matches.

Source: AMQP 0-9-1, section 3.1.3.3 (the topic exchange type): `*` is one word, `#` is zero or more, words are
separated by dots, and every other character stands for itself.
"""

from __future__ import annotations


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Tell whether `pattern` covers `routing_key`. Takes time proportional to the product of their words, at most."""
    parts = _words(pattern)
    places = _past_hashes(parts, {0})
    for word in _words(routing_key):
        stepped = {
            place if parts[place] == "#" else place + 1
            for place in places
            if place < len(parts) and parts[place] in ("#", "*", word)
        }
        places = _past_hashes(parts, stepped)
    return len(parts) in places


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _past_hashes(parts: list[str], places: set[int]) -> set[int]:
    """Add the places reached by letting `#` stand for nothing."""
    for place, part in enumerate(parts):
        if part == "#" and place in places:
            places.add(place + 1)
    return places
