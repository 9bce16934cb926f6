"""From documents to HTML: the templates, and how times, numbers and foreign text look.

Everything a template writes is escaped, and made visible where a terminal or a browser would obey it: text of messages
and errors comes from strangers.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spoolproof import limits
from spoolproof.cli.output import plain, visible
from spoolproof.telemetry.redaction import is_secret, masked, masked_body


@cache
def environment() -> Environment:
    """Return the templates."""
    made = Environment(
        loader=PackageLoader("spoolproof.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "duration": duration,
        "count": count,
        "pretty": pretty,
        "words": words,
        "clock": clock,
        "hidden": is_secret,
        "instant": datetime.fromisoformat,
    }
    made.globals |= {"query": query, "spark": spark, "quote": lambda text: quote(str(text), safe=""), "raw": Raw}
    return made


class Raw(str):
    """Text of ours, or text that somebody edits: no secret in it is masked."""

    __slots__ = ()


def _shown(value: Any) -> Any:
    """Return what a template writes for a value: nothing of it is obeyed, and nothing that is secret shows."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, Raw):
        return visible(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return "–" if value is None else plain(value)


def clock(at: datetime) -> str:
    """Return an instant as people read it: `2026-11-22 01:45:21 UTC`."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """Return a length of time by its largest unit, two where that matters: `42 s`, `12 min`, `3 h 20 min`, `5 d`."""
    seconds = max(0.0, seconds)
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        hours, minutes = divmod(int(seconds // 60), 60)
        return f"{hours} h {minutes} min" if hours < 10 and minutes else f"{hours} h"
    return f"{seconds / 86400:.0f} d"


def count(number: float) -> str:
    """Return a number with its thousands apart; `100 000+` where counting stopped."""
    shown = f"{int(number):,}".replace(",", "\u202f")
    return f"{shown}+" if number >= limits.ROWS_COUNTED_MAX else shown


def words(text: object) -> str:
    """Return an identifier as words: `in_review` as `in review`."""
    return str(text).replace("_", " ")


def pretty(value: Any) -> str:
    """Return JSON as indented text; text that is JSON too, any other text as it is."""
    text = masked_body(value) if isinstance(value, str) and not isinstance(value, Raw) else value
    try:
        data = text.encode() if isinstance(text, str) else msgspec.json.encode(masked(text))
        return Raw(msgspec.json.format(data, indent=2).decode())
    except (msgspec.MsgspecError, UnicodeError, TypeError):
        return Raw(text)


def query(fields: dict[str, Any]) -> str:
    """Return `?a=b` of the fields that say something; "" of none."""
    given = {name: value for name, value in fields.items() if value not in (None, "", [], ())}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def spark(values: list[float], width: int = 120, height: int = 28) -> str:
    """Return the points of a line through these values, for an SVG of this size."""
    top = max([*values, 1e-9])
    step = width / max(1, len(values) - 1)
    points = [f"{n * step:.1f},{height - 2 - (height - 4) * value / top:.1f}" for n, value in enumerate(values)]
    return " ".join(points)
