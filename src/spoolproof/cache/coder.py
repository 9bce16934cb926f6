"""Values as bytes: MessagePack by msgspec, typed, and checked to come back as they went.

A cache knows the class of its values (`of=`, or what a cached function is annotated to return), or holds plain values:
text, numbers, bytes, None, lists and dicts of them. What would come back as something else is refused. A value that
nobody can change is handed to all callers as it is; of any other each caller gets his own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID

import msgspec

from spoolproof.errors import CacheConfigError, CacheValueInvalid

_ATOMS = frozenset((*(str, bytes, int, float, bool, type(None)), *(datetime, date, time, timedelta, Decimal, UUID)))
_DEPTH_MAX = 20


class Coder:
    """Encodes and decodes the values of one class. of: any type msgspec knows, a pydantic model, or None for plain
    values. fingerprint: 8 bytes that change when the class changes its fields."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def __init__(self, name: str, of: Any = None) -> None:
        self._is_plain = of is None
        self._of = "plain values" if of is None else getattr(of, "__name__", str(of))
        if hasattr(of, "model_validate_json"):  # pydantic, by shape
            self.encode = lambda value: of.model_validate(value).model_dump_json().encode()
            self.decode = of.model_validate_json
            schema: Any = of.model_json_schema()
        else:
            try:
                self.encode = msgspec.msgpack.Encoder().encode
                self.decode = msgspec.msgpack.Decoder(Any if of is None else of).decode
                schema = str(msgspec.inspect.type_info(Any if of is None else of))
            except (TypeError, NameError) as error:
                raise CacheConfigError(name, [f"of={self._of}: {error}"]) from error
        self.fingerprint = blake2b(msgspec.json.encode(schema), digest_size=8).digest()

    def checked(self, value: Any) -> bytes:
        """Return the bytes of a value. Raises CacheValueInvalid for one that is not what its bytes say."""
        if value is None:
            return b"\xc0"
        try:
            body = self.encode(value)
            copy = self.decode(body)
        except Exception as error:  # whatever a type of the user's raises
            raise CacheValueInvalid(f"a {type(value).__name__} is not cached as {self._of}: {error}") from error
        if type(copy) is not type(value) or (copy != value and (self._is_plain or self.encode(copy) != body)):
            raise CacheValueInvalid(
                f"a {type(value).__name__} would come back from the cache as a {type(copy).__name__}, or changed; "
                f"declare its class: service.cache(…, of={type(value).__name__})"
            )
        return body

    def value_of(self, body: bytes) -> Any:
        """Return the value. Raises anything for bytes of something else."""
        return None if body == b"\xc0" else self.decode(body)


def is_immutable(value: object, depth: int = 0) -> bool:
    """Tell whether nobody can change a value, nor anything in it."""
    kind = type(value)
    if kind in _ATOMS or isinstance(value, Enum):
        return True
    if depth > _DEPTH_MAX:
        return False
    if kind is tuple or kind is frozenset:
        inside: Iterable[object] = cast(Iterable[object], value)
    elif isinstance(value, msgspec.Struct):
        if not value.__struct_config__.frozen:
            return False
        inside = [getattr(value, name) for name in value.__struct_fields__]
    elif dataclasses.is_dataclass(value) and getattr(kind, "__dataclass_params__").frozen:  # noqa: B009
        inside = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return False
    for one in inside:  # noqa: SIM110  half the time of all(), on the way of every read from Redis
        if type(one) not in _ATOMS and not is_immutable(one, depth + 1):
            return False
    return True
