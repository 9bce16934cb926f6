"""An entry as bytes: the head of `ports.cache`, and a body that says all that is known of the value.

Bytes of another schema, of a stranger, or of a later release are a miss and never an error. Compressed from 1,024 bytes
on, where that saves a tenth: zstd where this Python has it, else zlib. What would be larger than the cache's values may
be is not unpacked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec

from spoolproof.ports.cache import ENTRY, HEAD_BYTES, SEEN_BYTES

FORMAT = 1
COMPRESSED_MIN = 1024
COMPRESSED_RATIO = 0.9
PLAIN, ZLIB, ZSTD = 0, 1, 2


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


_ZSTD = _zstd()


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """What lies behind the head. Moments are milliseconds of the wall clock. packed: how the payload is compressed."""

    format: int
    fingerprint: bytes
    loaded_ms: int
    dead_ms: int
    sequence: int
    tags: tuple[str, ...]
    packed: int
    payload: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Envelope] = msgspec.msgpack.Decoder(Envelope).decode


def pack(
    body: bytes,
    *,
    version: bytes,
    fingerprint: bytes,
    loaded_ms: int,
    fresh_ms: int,
    dead_ms: int,
    sequence: int,
    tags: tuple[str, ...],
) -> bytes:
    """Return an entry's bytes. version: 16 bytes."""
    packed, payload = PLAIN, body
    if len(body) >= COMPRESSED_MIN:
        smaller = zlib.compress(body, 1) if _ZSTD is None else _ZSTD.compress(body, 3)
        if len(smaller) <= len(body) * COMPRESSED_RATIO:
            packed, payload = (ZLIB if _ZSTD is None else ZSTD), smaller
    envelope = Envelope(FORMAT, fingerprint, loaded_ms, dead_ms, sequence, tags, packed, payload)
    return b"".join((ENTRY, version, fresh_ms.to_bytes(8, "big"), _encode(envelope)))


def unpack(raw: bytes, fingerprint: bytes, bytes_max: int) -> tuple[Envelope, int, bytes] | None:
    """Return what an entry's bytes say, until when it is fresh, and its value's bytes; None for anything else."""
    if raw[:1] != ENTRY or len(raw) <= HEAD_BYTES:
        return None
    try:
        envelope = _decode(raw[HEAD_BYTES:])
        if envelope.format != FORMAT or envelope.fingerprint != fingerprint:
            return None
        body = envelope.payload if envelope.packed == PLAIN else _unpacked(envelope, bytes_max)
    except Exception:  # bytes of a stranger; what is wrong with them does not matter
        return None
    return envelope, int.from_bytes(raw[SEEN_BYTES:HEAD_BYTES], "big"), body


def peek(raw: bytes) -> tuple[Envelope, int] | None:
    """Return what an entry's bytes say of it, whatever its value is, and until when it is fresh."""
    try:
        return _decode(raw[HEAD_BYTES:]), int.from_bytes(raw[SEEN_BYTES:HEAD_BYTES], "big")
    except Exception:  # see unpack
        return None


def _unpacked(envelope: Envelope, bytes_max: int) -> bytes:
    if envelope.packed == ZLIB:
        reader: Any = zlib.decompressobj()
    elif envelope.packed == ZSTD and _ZSTD is not None:
        reader = _ZSTD.ZstdDecompressor()
    else:
        raise ValueError(envelope.packed)
    body: bytes = reader.decompress(envelope.payload, bytes_max + 1)
    if len(body) > bytes_max or not reader.eof:
        raise ValueError("larger than it may be, or cut")
    return body
