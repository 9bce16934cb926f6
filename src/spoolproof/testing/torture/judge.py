"""What must be true of a saga however it ends: pure, over what a trial has written down.

completed: every effect is in force once. compensated: none is. In between nothing is undone out of order or after the
point of no return, no `once` step is called again while nobody knows about its last call, and whatever does not move
has one question for a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spoolproof.ports.sagas import Phase, SagaState, StepRow, StepState
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.outcome import Effect
from spoolproof.saga.question import Kind
from spoolproof.saga.transitions import OVER
from spoolproof.testing.torture.faults import Fault
from spoolproof.testing.torture.report import Case, Finding
from spoolproof.testing.torture.trial import Trace

Net = Mapping[Any, int]
_BUGS = frozenset({Kind.FLOW_FAILED, Kind.REPLAY_MISMATCH, Kind.CRASH_LOOP})


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong: the name of a finding, and its text."""

    name: str
    text: str


def judged(trace: Trace, definition: SagaDefinition, wholes: Sequence[Net]) -> Case:
    """Return a line of the table. wholes: what completed sagas may leave, the one without faults first."""
    step = trace.place[1] if trace.place is not None else ""
    item = trace.place[2] if trace.place is not None else ""
    wrongs = [
        *_wrong_effects(trace, wholes),
        *_wrong_undo(trace, definition),
        *_wrong_calls(trace, definition),
        *_wrong_rest(trace),
    ]
    saga = trace.journal.saga
    end = saga.state.value if trace.question is None else f"{saga.state.value}: {trace.question.kind.value}"
    return Case(
        step=step if item in ("", "1") else f"{step} {item}",
        fault=trace.fault.value,
        is_struck=trace.hits > 0 or trace.fault is Fault.NONE,
        end=end,
        left=trace.net,
        doubtful=tuple(_doubtful(trace)),
        findings=tuple(Finding(wrong.name, step, trace.fault.value, wrong.text) for wrong in wrongs),
    )


def is_other_whole(trace: Trace, definition: SagaDefinition) -> bool:
    """Whether it shows another way in which the saga may be complete: its flow has taken a refusal, or what stands in
    for a read, into account."""
    if trace.journal.saga.state is not SagaState.COMPLETED or trace.place is None:
        return False
    rows = {row.place: row for row in trace.journal.steps}
    row = rows.get(trace.place)
    is_read = definition.steps[trace.place[1]].effect is Effect.READ
    return is_read or (row is not None and row.state is StepState.REFUSED)


def _wrong_effects(trace: Trace, wholes: Sequence[Net]) -> list[Wrong]:
    state, net = trace.journal.saga.state, trace.net
    found = [Wrong("undone_twice", f"{key!r} is {number}") for key, number in net.items() if number < 0]
    if state is SagaState.COMPENSATED:
        return found + [
            Wrong("left_behind", f"compensated, and {key!r} is {number}") for key, number in net.items() if number > 0
        ]
    keys = dict.fromkeys(key for whole in (*wholes, net) for key in whole)
    for key in keys:
        number, most = net.get(key, 0), max(whole.get(key, 0) for whole in wholes)
        if number > most:
            found.append(Wrong("landed_twice", f"{key!r} is {number}, without faults {most}"))
    if state is SagaState.COMPLETED and not found and net not in wholes:
        found.append(Wrong("not_landed", f"completed with {dict(net)}, without faults {dict(wholes[0])}"))
    return found


def _wrong_undo(trace: Trace, definition: SagaDefinition) -> list[Wrong]:
    seqs = {row.place[1:]: row.seq for row in trace.journal.steps if row.phase is Phase.DO}
    order = list(dict.fromkeys(n.place for n in trace.notes if n.what == "called" and n.place[0] is Phase.COMPENSATE))
    found = []
    if order != sorted(order, key=lambda place: -seqs.get(place[1:], 0)):
        found.append(Wrong("undo_order", f"undone in the order {', '.join(place[1] for place in order)}"))
    has_passed = False
    for note in trace.notes:
        is_pivot = definition.steps[note.place[1]].pivot and note.place[0] is Phase.DO
        has_passed = has_passed or (is_pivot and note.what == "returned")
        if has_passed and note.what == "called" and note.place[0] is Phase.COMPENSATE:
            found.append(Wrong("undone_after_pivot", f"{note.place[1]} is undone after the pivot has landed"))
            break
    return found


def _wrong_calls(trace: Trace, definition: SagaDefinition) -> list[Wrong]:
    found, open_calls = [], set()
    for note in trace.notes:
        if note.what == "bug":
            what = "the undo of " if note.place[0] is Phase.COMPENSATE else ""
            found.append(Wrong("bug", f"{what}{note.place[1]} raised {note.text}"))
        if definition.steps[note.place[1]].effect is not Effect.ONCE or note.place[0] is not Phase.DO:
            continue
        if note.what in ("clean", "verdict"):
            open_calls.discard(note.place)
        elif note.what == "called":
            if note.place in open_calls:
                found.append(Wrong("once_repeated", f"{note.place[1]} is called again, and may have landed"))
            open_calls.add(note.place)
    return list(dict.fromkeys(found))


def _wrong_rest(trace: Trace) -> list[Wrong]:
    saga = trace.journal.saga
    found = [Wrong("never_ends" if "end" in text else "broken", text) for text in trace.broken]
    if trace.items != (saga.state is SagaState.IN_REVIEW) or (trace.question is None) != (trace.items == 0):
        found.append(Wrong("no_question", f"it is {saga.state.value}, with {trace.items} open review items"))
    if trace.question is not None and trace.question.kind in _BUGS:
        found.append(Wrong(trace.question.kind.value, trace.question.text))
    if saga.state in OVER and saga.owner is not None:
        found.append(Wrong("broken", "it is over and still owned"))
    return found


def _doubtful(trace: Trace) -> list[str]:
    """Return the steps that may have landed and are not undone, of a saga that is not complete."""
    if trace.journal.saga.state is SagaState.COMPLETED:
        return []
    done = (StepState.SUCCEEDED, StepState.SKIPPED)
    undone = {
        (row.name, row.item.partition("/")[0])
        for row in trace.journal.steps
        if row.phase is Phase.COMPENSATE and row.state in done
    }
    return [row.name for row in trace.journal.steps if _may_have_landed(row) and (row.name, row.item) not in undone]


def _may_have_landed(row: StepRow) -> bool:
    is_open = row.state in (StepState.UNKNOWN, StepState.STARTED)
    return row.phase is Phase.DO and (row.is_maybe_landed or is_open) and row.state is not StepState.SUCCEEDED
