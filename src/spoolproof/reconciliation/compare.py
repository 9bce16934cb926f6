"""What two sides of a page of keys mean for a run: pure, and the whole of its arithmetic.

Once a run is over, seen = equal + repaired + reviewed + all that was skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from spoolproof import limits
from spoolproof.errors import InvariantViolated
from spoolproof.ports.reconciliations import Difference, Phase, Run, State, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What theirs means in our words (None: it is ours already), which moves of ours a repair may make, and how many
    differences a run may have: so many, and that share of at least 50 keys."""

    mapping: Mapping[State, State] | None
    transitions: Mapping[State, frozenset[State]]
    changes_max: int
    share_max: float


def difference_of(key: str, ours: State | None, theirs: State | None, rules: Rules) -> Difference | None:
    """Return what is different about a key that at least one side has; None if nothing is."""
    to = theirs if rules.mapping is None or theirs is None else rules.mapping.get(theirs)
    if theirs is None:
        verdict = Verdict.MISSING_THERE
    elif ours is None:
        verdict = Verdict.MISSING_HERE
    elif to is None:
        verdict = Verdict.UNMAPPED
    elif to == ours:
        return None
    else:
        verdict = Verdict.REPAIR if to in rules.transitions.get(ours, ()) else Verdict.UNDECLARED
    return Difference(key=key, ours=ours, theirs=theirs, to=to, verdict=verdict)


def compared(
    run: Run,
    keys: Sequence[str],
    ours: Mapping[str, State],
    theirs: Mapping[str, State],
    rules: Rules,
    now: datetime,
) -> Run:
    """Return a run after a page of keys; at the brake as soon as more differs than may."""
    found: list[Difference] = []
    gone = equal = 0
    for key in keys:
        if key not in ours and key not in theirs:
            gone += 1
            continue
        difference = difference_of(key, ours.get(key), theirs.get(key), rules)
        if difference is None:
            equal += 1
        else:
            found.append(difference)
    run = replace(
        run,
        touched_at=now,
        position=keys[-1],
        seen=run.seen + len(keys),
        seen_ours=run.seen_ours + len(ours),
        seen_theirs=run.seen_theirs + len(theirs),
        equal=run.equal + equal,
        skipped=_more(run.skipped, "gone", gone),
        differences=(*run.differences, *found),
    )
    return braked(run, now) if _is_over(run, rules.changes_max) else run


def compared_all(run: Run, rules: Rules, now: datetime) -> Run:
    """Return a run that has seen everything: ready to repair, at the brake, or over."""
    most = rules.changes_max
    if run.seen >= limits.RECONCILIATION_SHARE_KEYS_MIN:
        most = min(most, int(run.seen * rules.share_max))
    if _is_over(run, most):
        return braked(run, now)
    if run.is_dry:
        return finished(replace(run, skipped=_more(run.skipped, "dry_run", len(run.differences))), now)
    run = replace(run, phase=Phase.REPAIR, touched_at=now)
    return run if run.differences else finished(run, now)


def handled(run: Run, became: str, now: datetime) -> Run:
    """Return a run whose next difference became this: repaired, reviewed, or why it was skipped."""
    place = run.handled
    differences = list(run.differences)
    differences[place] = replace(differences[place], became=became)
    run = replace(run, differences=tuple(differences), handled=place + 1, touched_at=now)
    if became == "repaired":
        run = replace(run, repaired=run.repaired + 1)
    elif became == "reviewed":
        run = replace(run, reviewed=run.reviewed + 1)
    else:
        run = replace(run, skipped=_more(run.skipped, became, 1))
    return finished(run, now) if run.handled == len(differences) else run


def braked(run: Run, now: datetime) -> Run:
    """Return a run that repairs nothing, since too much would change."""
    skipped = _more(run.skipped, "brake", len(run.differences))
    return finished(replace(run, skipped=skipped), now, Phase.BRAKED)


def finished(run: Run, now: datetime, phase: Phase = Phase.FINISHED) -> Run:
    """Return a run that is over. Raises InvariantViolated if its numbers do not add up."""
    accounted = run.equal + run.repaired + run.reviewed + sum(run.skipped.values())
    if run.seen != accounted:
        raise InvariantViolated(f"reconciliation run {run.id}: {run.seen} keys seen, {accounted} accounted for")
    return replace(run, phase=phase, touched_at=now, finished_at=now)


def _is_over(run: Run, most: int) -> bool:
    return not run.is_forced and len(run.differences) > most


def _more(counts: Mapping[str, int], name: str, count: int) -> dict[str, int]:
    return {**counts, name: counts.get(name, 0) + count} if count else dict(counts)
