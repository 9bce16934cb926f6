"""The statement files: every statement is named, used, and says what it guarantees."""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from spoolproof.statements import load_statements
from spoolproof.stores.dead_letters import WORDS

FOLDER = Path(str(files("spoolproof.stores.postgres")))
FILES = sorted(path.name for path in FOLDER.glob("*.sql"))


def statements(file: str) -> dict[str, str]:
    return load_statements("spoolproof.stores.postgres", file, WORDS)


@pytest.mark.parametrize("file", FILES)
def test_every_statement_states_its_guarantee_and_is_sent_without_it(file: str) -> None:
    """The guarantee is for readers; sent along, it would cost bytes at every call."""
    text = (FOLDER / file).read_text()

    found = statements(file)

    assert found
    assert len(found) == text.count("-- Guarantees:") == text.count("-- name:")
    assert not any("--" in sql or sql.endswith(";") for sql in found.values())


@pytest.mark.parametrize("file", FILES)
def test_every_statement_is_used(file: str) -> None:
    """A statement nobody runs is a statement nobody tests."""
    code = "".join(path.read_text() for folder in (FOLDER, FOLDER.parent) for path in folder.glob("*.py"))

    assert [] == [name for name in statements(file) if f'"{name}"' not in code]


@pytest.mark.parametrize("file", FILES)
def test_every_table_is_named_with_its_schema(file: str) -> None:
    """The connection may be the user's, with any search_path."""
    words = " ".join(statements(file).values()).replace("(", " ").split()
    targets = [after for word, after in pairwise(words) if word in ("into", "update")]

    assert [] == [target for target in targets if not target.startswith(("spoolproof.", "set", "skip", "of"))]
