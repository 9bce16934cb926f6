"""Inputs, outputs and signals as the journal holds them: JSON, read back by the type the author annotated.

A value is taken only if it reads back the same, or a replay would hand on something else than the step returned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import msgspec

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.errors import CodecError
from spoolproof.roundtrip import lost_in, unsendable
from spoolproof.saga.errors import Unreadable


def _hook(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise NotImplementedError(f"a {type(value).__qualname__} cannot be written as JSON")
    return dump(mode="json")


_encode = msgspec.json.Encoder(enc_hook=_hook).encode


@cache
def _decoder(kind: Any) -> Callable[[bytes], Any]:
    if hasattr(kind, "model_validate_json"):  # pydantic, which is not imported for those who do not use it
        return cast(Callable[[bytes], Any], kind.model_validate_json)
    return cast(Callable[[bytes], Any], msgspec.json.Decoder(kind, dec_hook=_read_inner).decode)


def _read_inner(kind: Any, value: Any) -> Any:
    return value if kind is object else kind.model_validate(value)


def encode(value: object, kind: Any, what: str) -> bytes:
    """Return a value's JSON. Raises CodecError naming `what` for one that does not read back, or is too large."""
    try:
        body = _encode(value)
        read = decode(body, kind)
        fault = None if read == value else lost_in(value, read)
    except Exception as error:  # a model's own validator may raise anything
        raise CodecError(f"{what}: {unsendable(value) or error_line(error)}") from error
    if fault is not None:
        raise CodecError(f"{what} would come back as something else: {fault}; annotate its type")
    if len(body) > limits.SAGA_VALUE_BYTES_MAX:
        raise CodecError(
            f"{what} has {len(body)} bytes, at most {limits.SAGA_VALUE_BYTES_MAX}; keep it elsewhere and pass its name"
        )
    return body


def decode(body: bytes | None, kind: Any) -> Any:
    """Return what was encoded; None for nothing. Raises Unreadable."""
    if body is None:
        return None
    try:
        return _decoder(kind)(body)
    except Exception as error:  # a model's own validator may raise anything
        raise Unreadable(error_line(error, limits.SAGA_ERROR_CHARACTERS_MAX), body) from error


def digest(*values: object) -> str:
    """Return what tells two lists of arguments apart. Raises CodecError."""
    try:
        return hashlib.sha256(_encode(values)).hexdigest()[:32]
    except Exception as error:
        raise CodecError(f"arguments of a step: {error_line(error)}") from error
