"""What `spoolproof doctor` is told: the fact, what it means, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """pass; warn: works, with a risk; fail: a promise does not hold."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. found: the fact. meaning, remedy: empty for a pass."""

    check: str
    verdict: Verdict
    found: str
    meaning: str = ""
    remedy: str = ""
