"""What a saga was put through and how it came out, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must never happen, and did.

    name: left_behind, landed_twice, not_landed, undone_twice (effects) · undo_order, undone_after_pivot · once_repeated
    · bug, flow_failed, replay_mismatch, crash_loop (the saga's own code) · never_ends, no_question, broken.
    """

    name: str
    step: str
    fault: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.step or 'the saga'}, {self.fault}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One saga under one fault. is_struck: the fault was met. end: the state, in review with what is asked. left: the
    effects in force at the end, by key. doubtful: steps that may have landed and are not undone."""

    step: str
    fault: str
    is_struck: bool
    end: str
    left: Mapping[Any, int]
    doubtful: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. Printed it is the table and the findings: `assert report.ok, report`."""

    saga: str
    cases: tuple[Case, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def findings(self) -> list[Finding]:
        """Everything that was found, in the order of the table."""
        return [finding for case in self.cases for finding in case.findings]

    def table(self) -> str:
        """Return step × fault → end state and what was left behind, one line each; faults that no call met are left
        out."""
        rows = [("step", "fault", "end", "left behind")]
        rows += [(case.step, case.fault, case.end, _left(case)) for case in self.cases if case.is_struck]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        rows.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2], "-" * len(rows[0][3])))
        lines = [
            "  ".join((*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3])) for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)

    def __str__(self) -> str:
        found = "\n".join(str(finding) for finding in self.findings)
        return f"{self.saga}\n{self.table()}\n{found or 'nothing found'}"


def _left(case: Case) -> str:
    effects = ", ".join(f"{key if isinstance(key, str) else repr(key)} {number}" for key, number in case.left.items())
    doubts = f" (not known: {', '.join(case.doubtful)})" if case.doubtful else ""
    marks = "".join(f"  <- {name}" for name in dict.fromkeys(finding.name for finding in case.findings))
    return f"{effects or 'nothing'}{doubts}{marks}"
