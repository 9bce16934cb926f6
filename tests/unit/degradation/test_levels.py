"""When a level is entered and left, as tables and against a model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoolproof.degradation.levels import Levels, Signals, asked_for

CALM = Signals()


@pytest.mark.parametrize(
    ("signals", "level"),
    [
        (CALM, 0),
        (Signals(lag_seconds=0.25), 0),
        (Signals(lag_seconds=0.26), 1),
        (Signals(lag_seconds=0.51), 2),
        (Signals(lag_seconds=1.01), 3),
        (Signals(fullness=0.61), 1),
        (Signals(fullness=0.81), 2),
        (Signals(fullness=0.96), 3),
        (Signals(in_flight=0.81), 1),
        (Signals(in_flight=0.91), 2),
        (Signals(in_flight=1.0), 3),
        (Signals(important=("products",)), 1),
        (Signals(critical=("db",), important=("products",)), 2),  # an outage alone is never the third
    ],
)
def test_what_asks_for_a_level(signals: Signals, level: int) -> None:
    assert level == asked_for(signals)[0]


INPUTS = {
    "calm": CALM,
    "important": Signals(important=("a",)),
    "critical": Signals(critical=("b",)),
    "lag 1": Signals(lag_seconds=0.3),
    "lag 1 nearly over": Signals(lag_seconds=0.22),
    "lag 2 nearly over": Signals(lag_seconds=0.45),
    "full": Signals(fullness=0.97),
}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(INPUTS)), st.integers(1, 20)), min_size=1, max_size=10))
def test_levels_are_what_a_model_says_that_remembers_every_evaluation(phases: list[tuple[str, int]]) -> None:
    """Entered after three in a row, left one by one after a minute below 80 %, each held for half a minute."""
    tested, asked, below, level, entered_at, now = Levels(), [0, 0], [3], 0, 0.0, 0.0
    below = []
    for name, evaluations in phases:
        for _ in range(evaluations):
            now += 5.0
            tested.evaluate(INPUTS[name], now)
            asked.append(asked_for(INPUTS[name])[0])
            below.append((now, asked_for(INPUTS[name], 0.8)[0]))
            if len(below) >= 3 and min(asked[-3:]) > level:
                level, entered_at = min(asked[-3:]), now
            elif level:
                since = now
                for moment, still in reversed(below):
                    if still >= level:
                        break
                    since = moment
                else:
                    since = below[0][0]
                is_below = below[-1][1] < level
                if is_below and now - since >= 60 and now - entered_at >= 30:
                    level, entered_at = level - 1, now
            assert level == tested.level, f"{name} at {now}"
