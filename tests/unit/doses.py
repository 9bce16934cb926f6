"""How much of a random test to run: a little before every commit, a lot in `make proof`."""

from __future__ import annotations

import os

_FACTORS = {"": 1, "ci": 5, "proof": 500}


def examples(count: int) -> int:
    """Return how many examples a test should draw that draws `count` before a commit."""
    return count * _FACTORS[os.environ.get("SPOOLPROOF_DOSE", "")]
