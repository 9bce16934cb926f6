"""Equal failures get equal fingerprints, so that a thousand dead letters read as three groups.

The class of the exception and the module and function of its five innermost frames of user code; no line numbers, so
an unrelated edit above does not split a group, and no error text, which often carries an id.
"""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path
from types import TracebackType

from spoolproof.caught import class_name

_FRAMES = 5
_OWN_FOLDER = str(Path(__file__).resolve().parent.parent)


def fingerprint_of(reason: str, error: BaseException | None) -> str:
    """Return 16 hex digits that are equal for equal failures."""
    parts = [reason]
    if error is not None:
        parts.append(class_name(error))
        parts.extend(_user_frames(error.__traceback__))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _user_frames(trace: TracebackType | None) -> list[str]:
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    users = [frame for frame in frames if not frame.f_code.co_filename.startswith(_OWN_FOLDER)]
    return [f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}" for frame in users[-_FRAMES:]]
