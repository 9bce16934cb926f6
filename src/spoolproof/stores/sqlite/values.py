"""How Python values lie in a SQLite file, and come back: by the declared type of their column.

SQLite has five types and keeps the name a column was declared with. Values are written so that they sort and compare
as they should; `sqlite3` reads them back through one converter per name. Its converters are the module's, not a
connection's: one that the program has registered before is left alone. An expression has no declared type, and comes
back as SQLite has it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from spoolproof.stores.values import json_text, shown

_DIGITS_MAX = 15  #: what a column of numeric affinity keeps: https://sqlite.org/datatype3.html#type_affinity
_MICROSECOND = timedelta(microseconds=1)


def stored(value: Any) -> object:
    """Return a parameter as SQLite takes it. Raises ValueError, TypeError."""
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")  # one width: it sorts as text
        case date():
            return value.isoformat()
        case timedelta():
            return value // _MICROSECOND
        case UUID():
            return str(value)
        case Decimal():
            if len(value.normalize().as_tuple().digits) > _DIGITS_MAX:
                raise ValueError(f"{shown(value)}: SQLite keeps {_DIGITS_MAX} digits; use a text column, or PostgreSQL")
            return str(value)
        case list() | dict():
            return json_text(value)
        case _:
            raise TypeError(f"{shown(value)}: a {type(value).__qualname__} cannot be stored; see docs/stores.md")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo is None else instant.astimezone(UTC)


_READERS: dict[str, Callable[[str], object]] = {
    "boolean": lambda text: text != "0",
    "bool": lambda text: text != "0",
    "numeric": Decimal,
    "decimal": Decimal,
    "uuid": UUID,
    "timestamptz": _instant,
    "interval": lambda text: timedelta(microseconds=int(text)),
    "json": json.loads,
    "jsonb": json.loads,
}
_REPLACED: dict[str, Callable[[str], object]] = {
    # the standard library's own, which 3.12 deprecates; these read what those did
    "date": lambda text: date.fromisoformat(text[:10]),
    "timestamp": _instant,
}


def register() -> None:
    """Let `sqlite3` read these column types, on connections that ask for it."""
    for name, read in {**_READERS, **_REPLACED}.items():
        found = sqlite3.converters.get(name.upper())
        if found is None or getattr(found, "__module__", "") == "sqlite3.dbapi2":
            sqlite3.register_converter(name, _converter(read))


def _converter(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda raw: read(raw.decode())
