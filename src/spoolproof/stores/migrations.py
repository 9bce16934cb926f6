"""Numbered plain SQL files, in order, for every store.

A step is a file `migrations/0001_first.sql` beside the store's code: its number is its version, it is never edited
once released, and each is one transaction. A release adds what it needs and removes nothing (expand); the next one
may remove (contract), so release N runs on schema N and N + 1.

Must change together: a new file, and whatever statement needs it.
"""

from __future__ import annotations

import re
from importlib import resources

from spoolproof.errors import InvariantViolated
from spoolproof.failpoints import failpoint
from spoolproof.ports.store import Migration

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


def load(package: str) -> tuple[Migration, ...]:
    """Return the steps in the `migrations` folder of a package, lowest version first.

    Raises InvariantViolated unless the versions are 1, 2, 3 … without a gap.
    """
    steps = []
    for file in (resources.files(package) / "migrations").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            steps.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    steps.sort(key=lambda step: step.version)
    if [step.version for step in steps] != list(range(1, len(steps) + 1)):
        raise InvariantViolated(f"{package}: migrations must count from 1: {[step.version for step in steps]}")
    return tuple(steps)


class Steps:
    """What the migrations of every database are: steps, each noted in a table when it has run."""

    def __init__(self, steps: tuple[Migration, ...], *, versions: str, begin: str) -> None:
        """versions: the table. begin: opens the transaction of a step."""
        self._steps = steps
        self._versions = versions
        self._begin = begin

    @property
    def needed(self) -> int:
        return self._steps[-1].version

    def sql(self, above: int = 0) -> str:
        return "\n".join(
            f"-- {_name(step)}\n{self._begin};\n{step.sql}\n{self.noting(step)};\ncommit;\n"
            for step in self._steps
            if step.version > above
        )

    def noting(self, step: Migration) -> str:
        """Return the statement that notes a step as run, in its own transaction."""
        return f"insert into {self._versions} (version, name) values ({step.version}, '{step.name}')"


def applied(step: Migration) -> str:
    """Note that a step has committed; returns its name for people, `0001_first`."""
    failpoint("migration.after_step")
    return _name(step)


def _name(step: Migration) -> str:
    return f"{step.version:04d}_{step.name}"
