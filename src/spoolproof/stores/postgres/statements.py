"""The statements of a `.sql` file beside this one, by the name in their `-- name:` line."""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def statements(file: str) -> dict[str, str]:
    """Return name → SQL, without comments and the final semicolon, which would reach the server with every call."""
    text = files(__package__).joinpath(file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {
        name: _COMMENT.sub("", body).strip().removesuffix(";")
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
