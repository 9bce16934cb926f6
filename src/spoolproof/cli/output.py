"""What a command shows: one JSON document, or text for people.

Text of messages and errors comes from strangers: control characters, which a terminal would obey, are made visible.
What it shows is what people paste: secrets are masked, but where a command is asked for a payload.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import msgspec

from spoolproof.telemetry.redaction import masked, masked_text

PIPE_COLUMNS = 200
"""Width when nobody looks: wide enough that no id is ever cut."""


def emit(command: str, fields: Mapping[str, Any], *, reveal: Set[str] = frozenset(), whole: bool = False) -> None:
    """Write a command's JSON document to standard output. command: like `dlq.ls`. reveal: keys that are not masked.
    whole: nothing is."""
    document: object = {"schema": f"spoolproof.{command}/1", **fields}
    if not whole:
        document = masked(msgspec.json.decode(msgspec.json.encode(document)), reveal)
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write lines for people to standard output."""
    sys.stdout.write(visible(text) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write lines for people to standard error."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table to standard output; its first column is never cut or wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, emoji=False, markup=False, highlight=False)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        shown.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(plain(cell)) for cell in row))
    console.print(shown)


def plain(value: object) -> str:
    """Return what `cell` does, without secrets."""
    return masked_text(cell(value))


def cell(value: object) -> str:
    """Return a value as text without control characters but line breaks and tabs; a time in UTC, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    return visible(str(value))


def visible(text: str) -> str:
    """Return a text with its control characters, but line breaks and tabs, as escapes."""
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character < " " or "\x7f" <= character <= "\x9f":
        return character if character in "\n\t" else f"\\x{ord(character):02x}"
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"  # the direction of what follows
    return f"\\u{ord(character):04x}" if turns else character
