"""The moves of dead letters are one table: what the statements of both databases write is what it says."""

from __future__ import annotations

import pytest

from spoolproof.ports.dead_letters import CLOSED, MOVES, DeadLetterState
from spoolproof.statements import load_statements
from spoolproof.stores.dead_letters import WORDS

SQL = {
    "spoolproof.stores.postgres": {
        "recorded": "keep",
        "replayed": "replay",
        "resolved": "resolve",
        "discarded": "discard",
    },
    "spoolproof.stores.sqlite": {
        "recorded": "keep",
        "replayed": "start_replay",
        "resolved": "resolve",
        "discarded": "discard",
    },
}


@pytest.mark.parametrize("verb", [one for one in MOVES if one != "held"])  # that one only inserts
@pytest.mark.parametrize("package", SQL)
def test_each_statement_moves_to_the_state_of_the_table(package: str, verb: str) -> None:
    """A state that only one database knew would be a dead letter nobody finds on the other."""
    statements = load_statements(package, "dead_letters.sql", {name: f"<{name}>" for name in WORDS})
    sql = statements[SQL[package][verb]]

    assert f"set state = '{MOVES[verb].to}'" in sql
    assert (verb == "recorded") or f"state in (<may_be_{verb}>)" in sql
    assert not any(f"state = '{state}'" in sql for state in DeadLetterState if state is not MOVES[verb].to)


def test_what_is_closed_is_opened_by_a_new_failure_and_by_nothing_else() -> None:
    """Retention goes by it: an open dead letter never expires."""
    assert {"recorded"} == {verb for verb, move in MOVES.items() if set(CLOSED) & set(move.after)}
