"""Statements as SQLite takes them: `{now}` is the database's clock in Unix seconds, `{steady}` the one nobody sets."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

from spoolproof import statements
from spoolproof.sqlite.connection import NOW
from spoolproof.sqlite.steady import STEADY


def load_statements(package: str, file: str, words: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return name → SQL of a package's file, as `spoolproof.statements` does."""
    return statements.load_statements(package, file, {"now": NOW, "steady": STEADY, **(words or {})})


def split_script(sql: str) -> Iterator[str]:
    """Yield the statements of a script one by one: `executescript` would commit the transaction it finds."""
    statement = ""
    for piece in sql.split(";")[:-1]:
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
