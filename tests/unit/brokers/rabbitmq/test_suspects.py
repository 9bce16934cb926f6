"""Who is blamed for the end of a channel or connection: only who was alone, and again."""

from __future__ import annotations

import pytest

from spoolproof.brokers.rabbitmq.suspects import Suspects

CUT, TOO_LARGE, INTERNAL = 0, 406, 541


@pytest.mark.parametrize(
    ("ends", "verdicts"),
    [
        ([(TOO_LARGE, False), (TOO_LARGE, False)], [False, True]),
        ([(TOO_LARGE, False), (CUT, False), (TOO_LARGE, False)], [False, False, True]),
        ([(CUT, False)] * 10, [False] * 10),
        ([(INTERNAL, False)] * 10, [False] * 10),
        ([(CUT, True)] * 3, [False, False, True]),
        ([(CUT, True), (CUT, False), (INTERNAL, True), (CUT, False), (CUT, True)], [False] * 4 + [True]),
    ],
)
def test_guilt_needs_a_reason_or_the_proof_of_others(ends: list[tuple[int, bool]], verdicts: list[bool]) -> None:
    """A broker that dies again and again meets the same first message each time; that message is innocent."""
    suspects = Suspects()

    assert verdicts == [suspects.was_alone("m", code, after_others=after_others) for code, after_others in ends]


def test_a_confirm_acquits() -> None:
    """Whatever ended the channel, it was not this message."""
    suspects = Suspects()
    suspects.was_alone("m", TOO_LARGE, after_others=True)
    assert "m" in suspects

    suspects.acquit("m")

    assert "m" not in suspects
    assert not suspects.was_alone("m", TOO_LARGE, after_others=True)


def test_suspects_are_bounded() -> None:
    """A broker that fails for a week must not fill the memory."""
    suspects = Suspects()
    for number in range(1000):
        suspects.was_alone(str(number), CUT, after_others=False)

    assert "999" in suspects
    assert "0" not in suspects
