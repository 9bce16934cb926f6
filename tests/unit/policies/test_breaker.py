"""Rules as they are written, and what is wrong with them."""

from __future__ import annotations

import pytest

from spoolproof.errors import PolicyConfigError
from spoolproof.policies import Breaker, Consecutive, Rate, Slow
from spoolproof.policies.parts.breaker import Rule, leaves


@pytest.mark.parametrize(
    ("rule", "shape", "given"),
    [
        (Rate(), "rate", {}),
        (
            Rate(0.4, window_seconds=60, calls_min=5),
            "rate",
            {"failure_rate": 0.4, "window_seconds": 60, "calls_min": 5},
        ),
        (Rate(window_calls=50), "rate", {"window_calls": 50}),
        (Consecutive(5, within_seconds=60), "consecutive", {"consecutive": 5, "within_seconds": 60}),
        (
            Slow(0.8, slow_seconds=5, window_seconds=60, calls_min=4),
            "slow",
            {"slow_rate": 0.8, "slow_seconds": 5, "slow_window_seconds": 60, "slow_calls_min": 4},
        ),
        (Rate() | Consecutive(3), ("any", "rate", "consecutive"), {"consecutive": 3}),
        (Rate() & Consecutive(3), ("all", "rate", "consecutive"), {"consecutive": 3}),
        (
            Rate() & (Consecutive(3) | Slow(0.5, slow_seconds=1)),
            ("all", "rate", ("any", "consecutive", "slow")),
            {"consecutive": 3, "slow_rate": 0.5, "slow_seconds": 1},
        ),
    ],
)
def test_a_rule_is_a_shape_and_the_numbers_it_was_given(rule: Rule, shape: object, given: dict[str, object]) -> None:
    """Defaults come later, from presets and the environment; a rule must not pretend they were asked for."""
    breaker = Breaker(rule)

    assert (shape, given) == (breaker.shape, breaker.given)


def test_a_breaker_without_a_rule_has_no_shape_of_its_own() -> None:
    """Only then may a preset or an alias bring the rule."""
    breaker = Breaker(open_seconds=3, calls_min=7)

    assert (None, {"open_seconds": 3, "calls_min": 7}) == (breaker.shape, breaker.given)


def test_the_leaves_of_a_shape_are_its_kinds() -> None:
    assert ["rate", "slow", "consecutive"] == leaves(("all", "rate", ("any", "slow", "consecutive")))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Breaker(Rate(2.0)), "failure_rate=2.0"),
        (lambda: Breaker(Rate(0.5, window_seconds=30, window_calls=10)), "window_calls=10: not together with"),
        (lambda: Breaker(Consecutive(True)), "consecutive=True"),
        (lambda: Breaker(Consecutive(3) | Consecutive(5)), "consecutive twice"),
        (lambda: Breaker(Rate() & (Rate() | Consecutive(3))), "rate twice"),
        (lambda: Breaker(Consecutive(3), consecutive=4), "consecutive=4: the rule says 3"),
        (lambda: Breaker(5), "rule=5: Rate, Consecutive or Slow"),
        (lambda: Breaker(reset_timeout=5), "reset_timeout=5: Breaker has no such setting"),
        (lambda: Breaker(open_seconds=float("nan")), "open_seconds=nan"),
        (lambda: Breaker(probes_max=1.5), "probes_max=1.5"),
        (lambda: Breaker(mode="maybe"), "mode='maybe'"),
    ],
)
def test_a_wrong_declaration_names_the_setting_and_the_value(make: object, expected: str) -> None:
    with pytest.raises(PolicyConfigError) as caught:
        make()  # type: ignore[operator]

    assert any(expected in fault for fault in caught.value.faults), caught.value.faults


def test_all_faults_are_told_at_once() -> None:
    """Whoever corrects a start-up report should have to do it once."""
    with pytest.raises(PolicyConfigError) as caught:
        Breaker(Rate(2.0) | Rate(3.0, calls_min=0), open_seconds=-1, colour="red")

    told = "\n".join(caught.value.faults)
    assert [] == [
        part for part in ("2.0", "3.0", "calls_min=0", "twice", "open_seconds=-1", "colour") if part not in told
    ]
