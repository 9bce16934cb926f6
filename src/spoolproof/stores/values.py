"""What a statement of the user's may be given, so that the same code means the same on every store.

Taken: None, bool, int, float, str, bytes, Decimal, UUID, date, datetime, timedelta, list and dict (JSON), and an Enum
for its value. Refused everywhere is what one store would refuse and another one keep otherwise, or not at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

_INTEGER_MAX = 2**63 - 1
_UNPAIRED = re.compile("[\ud800-\udfff]")
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class NotJson(ValueError):
    """A value of a JSON column that no store may be given."""


def checked(args: Sequence[object]) -> list[Any]:
    """Return the parameters of a statement with enums replaced by their values. Raises ValueError naming the first one
    that no store may be given."""
    return [_checked(number, value) for number, value in enumerate(args, 1)]


def _checked(number: int, value: object) -> object:
    if isinstance(value, Enum):
        value = value.value
    fault = _fault(value)
    if fault is not None:
        raise ValueError(f"parameter ${number}={shown(value)}: {fault}")
    return value


def _fault(value: object) -> str | None:
    match value:
        case str():
            if "\0" in value:
                return "text with a NUL cannot be stored; keep it as bytes"
            if _UNPAIRED.search(value):
                return "a lone surrogate is no text; keep it as bytes"
        case int() if not -_INTEGER_MAX - 1 <= value <= _INTEGER_MAX:
            return "more than 64 bits; pass a Decimal, or text"
        case float() if math.isnan(value):
            return "NaN is no number; pass None"
        case Decimal() if not value.is_finite():
            return "NaN and infinity are no numbers; pass None"
        case datetime() if value.utcoffset() is None:
            return "no time zone; pass an aware datetime, for example datetime.now(UTC)"
    return None


def json_text(value: object) -> str:
    """Return a value of a JSON column as text; text itself is taken for JSON. Raises NotJson."""
    if isinstance(value, str):
        return value
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotJson(f"{shown(value)}: {error}; JSON takes None, bool, int, float, str, list and dict") from error
    if _ESCAPED_NUL.search(text) or _UNPAIRED.search(text):
        raise NotJson(f"{shown(value)}: text with a NUL or a lone surrogate cannot be stored")
    return text


def storable(text: str) -> str:
    """Return text as a column of every store can hold it."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def shown(value: object) -> str:
    """Return a value for a message to people, cut."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
