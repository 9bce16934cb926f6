"""Equal failures get equal fingerprints, so that a thousand dead letters read as three groups.

The class of the exception and the module and function of its five innermost frames of user code; no line numbers, so
an unrelated edit above does not split a group, and no error text, which often carries an id.
"""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path
from types import TracebackType

from spoolproof import limits

_FRAMES = 5
_OWN_FOLDER = str(Path(__file__).resolve().parent.parent)


def fingerprint_of(reason: str, error: BaseException | None) -> str:
    """Return 16 hex digits that are equal for equal failures."""
    parts = [reason]
    if error is not None:
        parts.append(class_name(error))
        parts.extend(_user_frames(error.__traceback__))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def class_name(error: BaseException) -> str:
    """Return the class of an exception as `module.Name`, without the module for built-in ones."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def stack_of(error: BaseException) -> str:
    """Return the traceback as text, its start cut to 8 KiB and marked `…`; the innermost frames are kept."""
    text = "".join(traceback.format_exception(error))
    encoded = text.encode(errors="replace")
    if len(encoded) <= limits.STACK_BYTES_MAX:
        return storable_text(text)
    return storable_text("…" + encoded[-limits.STACK_BYTES_MAX :].decode(errors="ignore"))


def error_text(error: BaseException, characters_max: int = 500) -> str:
    """Return what an exception says in at most `characters_max` characters; its class if it says nothing."""
    text = storable_text(str(error)) or class_name(error)
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def storable_text(text: str) -> str:
    """Return the text with what no store can keep replaced: NUL (PostgreSQL) and lone surrogates (UTF-8)."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()


def _user_frames(trace: TracebackType | None) -> list[str]:
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    users = [frame for frame in frames if not frame.f_code.co_filename.startswith(_OWN_FOLDER)]
    return [f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}" for frame in users[-_FRAMES:]]
