"""Statements in `.sql` files beside the code that sends them, by the name in their `-- name:` line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


def load_statements(package: str, file: str, words: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return name → SQL of a package's file, without comments and the final semicolon, which would reach the server
    with every call. words: what each `{word}` in it becomes."""
    text = (resources.files(package) / file).read_text("utf-8")
    _, *parts = _NAME.split(text)
    return {
        name: filled(_COMMENT.sub("", body).strip().removesuffix(";"), words or {})
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def filled(sql: str, words: Mapping[str, str]) -> str:
    """Return a statement with each `{word}` replaced; other braces are left as they are."""
    for word, text in words.items():
        sql = sql.replace(f"{{{word}}}", text)
    return sql
