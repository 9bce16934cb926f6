"""How much of a random test to run: a little before every commit, more in `make test`, a lot in `make proof`, least for
each mutant."""

from __future__ import annotations

import os

import pytest

_FACTORS = {"commit": 0.25, "": 0.5, "ci": 5.0, "proof": 500.0, "mutation": 0.1}


def examples(count: int) -> int:
    """Return how many examples a test should draw that draws `count` before a commit."""
    return max(1, round(count * _FACTORS[os.environ.get("SPOOLPROOF_DOSE", "")]))


MACHINE_EXAMPLES = min(examples(2_000), 100_000)
"""For a model that is played against a state machine."""
MACHINE_SECONDS = pytest.mark.timeout(300 if MACHINE_EXAMPLES <= 2_000 else 3_600)
"""What such a test may take on a machine that is busy with other things."""
