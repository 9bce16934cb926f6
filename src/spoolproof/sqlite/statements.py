"""Statements in `.sql` files, by the name in their `-- name:` line.

`{now}` in a statement becomes the database's clock in Unix seconds, `{steady}` the one that nobody sets.
"""

from __future__ import annotations

import re
from importlib import resources

from spoolproof.sqlite.connection import NOW
from spoolproof.sqlite.steady import STEADY

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


def load_statements(package: str, file: str) -> dict[str, str]:
    """Return name → SQL of a package's file, without comments and the final semicolon."""
    text = (resources.files(package) / file).read_text("utf-8")
    _, *parts = _NAME.split(text)
    return {
        name: _COMMENT.sub("", body).strip().removesuffix(";").replace("{now}", NOW).replace("{steady}", STEADY)
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
