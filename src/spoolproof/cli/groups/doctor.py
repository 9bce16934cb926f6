"""`spoolproof doctor`: what is wrong here, what it means, and the command that mends it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import typer

from spoolproof.cli.checks import examine
from spoolproof.cli.exits import FAILED
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, plain, say
from spoolproof.ports.finding import Finding, Verdict


def doctor(as_json: AsJson = False) -> None:
    """Check settings, disk, store and broker. Exit 1 when a check fails; warnings do not count."""
    findings = asyncio.run(examine())
    counts = Counter(finding.verdict.value for finding in findings)
    if as_json:
        emit("doctor", {"findings": findings, "counts": {one.value: counts[one.value] for one in Verdict}})
    else:
        say(report(findings))
    if counts[Verdict.FAIL]:
        raise typer.Exit(FAILED)


def report(findings: Sequence[Finding]) -> str:
    """Return the findings as lines for people."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict.value:4}  {finding.check}: {finding.found}")
        if finding.meaning:
            lines.append(f"      {finding.meaning}")
        if finding.remedy:
            lines.append(f"      → {finding.remedy}")
    return plain("\n".join(lines))


GROUP = Group("doctor", {"": doctor}, place=3)
