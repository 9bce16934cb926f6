"""What a person asks of reconciliation, as functions that return documents; the command line calls the same ones."""

from __future__ import annotations

from typing import Any

import msgspec

from spoolproof.errors import NotFound
from spoolproof.ports.reconciliations import Reconciliations, Run


async def ls(runs: Reconciliations, *, reconciler: str | None = None, limit: int = 20) -> dict[str, Any]:
    """Return the newest runs, and how many marks wait for their check."""
    found = await runs.runs(None, reconciler, limit)
    marks = await runs.marks(None)
    waiting = [
        {"service": service, "reconciler": name, "marks": count}
        for (service, name), count in marks.items()
        if reconciler in (None, name)
    ]
    return {"runs": [summary(run) for run in found], "marks": waiting}


async def show(runs: Reconciliations, id: str) -> dict[str, Any]:
    """Return a run with everything that differed and what became of it. Raises NotFound."""
    run = await runs.get(id)
    if run is None:
        error = NotFound(f"there is no reconciliation run {id!r}")
        error.hint = "spoolproof reconcile ls"
        raise error
    return whole(run)


def summary(run: Run) -> dict[str, Any]:
    """Return the numbers of a run: once it is over, seen = equal + repaired + reviewed + what was skipped."""
    document = msgspec.structs.asdict(run)
    for name in ("differences", "handled", "version"):
        del document[name]
    return {**document, "differs": len(run.differences)}


def whole(run: Run) -> dict[str, Any]:
    """Return a run with its differences."""
    return {**summary(run), "differences": [msgspec.structs.asdict(one) for one in run.differences]}
