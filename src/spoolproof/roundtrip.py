"""What of a payload would be lost on its way: found after a check has failed, to name the field.

A payload is sent only if its own model reads the same from its bytes; `codec` asks that of each, which is cheap. Here
is the slow part: the first field that cannot be sent, or comes back as something else. A tuple may come back as a list
where the model does not tell them apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

_DEPTH_MAX = 200
"""Fields within fields that are looked through. What is nested deeper cannot be read everywhere."""


def unsendable(value: object, path: str = "", depth: int = 0) -> str | None:
    """Return the first field no JSON can hold and why, or None if each can be held by itself."""
    if depth > _DEPTH_MAX:
        return f"{path[:60]}…: is nested more than {_DEPTH_MAX} deep, or holds itself"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{_shown(path)}: {value} is no number JSON can hold; send None, or leave the field out"
    if isinstance(value, str) and not _is_unicode(value):
        return f"{_shown(path)}: {value!r} is not valid Unicode (surrogates not allowed)"
    if isinstance(value, Mapping):
        for key in value:
            if isinstance(key, str) and not _is_unicode(key):
                return f"{_shown(path)}: the key {key!r} is not valid Unicode (surrogates not allowed)"
    inside = list(_children(value, path))
    for child_path, child in inside:
        if fault := unsendable(child, child_path, depth + 1):
            return fault
    if not inside:
        try:
            msgspec.json.encode(value)
        except Exception as error:  # whatever a type of the user's raises is the reason to show
            return f"{_shown(path)}: {error}"
    return None


def lost_in(sent: object, read: object, path: str = "", depth: int = 0) -> str | None:
    """Return the first field of `sent` that its reader would find changed, or None."""
    if depth > _DEPTH_MAX:
        return f"{path[:60]}…: is nested more than {_DEPTH_MAX} deep"
    if sent == read:
        return None
    here, there = dict(_children(sent, path)), dict(_children(read, path))
    if here and here.keys() == there.keys() and _are_alike(sent, read):
        # compared apart, because a class may be without equality, or compare what is not sent
        for child_path, child in here.items():
            if fault := lost_in(child, there[child_path], child_path, depth + 1):
                return fault
        return None
    if isinstance(sent, Mapping) and isinstance(read, Mapping):
        key = next((key for key in sent if key not in read), None)
        return f"{_shown(path)}: the key {key!r} is read back as text; make it text"
    return f"{_shown(path)}: {_cut(sent)} is read back as {_cut(read)}; send what its type says"


def reason_of(error: Exception) -> str:
    """Return the field and the reason of a decoder's error."""
    if hasattr(error, "errors"):  # pydantic's ValidationError
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{_shown(''.join(_step(part) for part in first['loc']))}: {first['msg']}"
    text, _, place = str(error).partition(" - at `$")
    return f"{_shown(place.removesuffix('`'))}: {text}"


def _children(value: object, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield path + _step(key), child
    elif isinstance(value, list | tuple | set | frozenset):
        for number, child in enumerate(value):
            yield f"{path}[{number}]", child
    else:
        for name in _fields(type(value)):
            if hasattr(value, name):
                yield f"{path}.{name}", getattr(value, name)


def _fields(model: type) -> tuple[str, ...]:
    if issubclass(model, msgspec.Struct):
        return model.__struct_fields__
    if dataclasses.is_dataclass(model):
        return tuple(field.name for field in dataclasses.fields(model))
    return tuple(getattr(model, "model_fields", ()))  # pydantic


def _are_alike(sent: object, read: object) -> bool:
    return type(sent) is type(read) or (
        (isinstance(sent, Mapping) and isinstance(read, Mapping))
        or (isinstance(sent, tuple | list) and isinstance(read, list | tuple))
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _step(part: object) -> str:
    return f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part!r}]"


def _shown(path: str) -> str:
    return path.removeprefix(".") or "the payload"


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
