"""The only private names of pika in this package.

`_read_frame`, `_frame_buffer`: pika lets a content header it cannot decode (a timestamp in milliseconds, an unknown
field type) tear down the connection; the message is delivered again and does it again, for ever, taking every consumer
along. Here such a header becomes properties that carry the raw bytes and the reason, so the delivery reaches its
queue's consumer.

`_terminate_stream`: pika has no public abort, and `close()` waits for an answer that a dead peer never sends.

`_adapter_emit_data`: pika buffers frames until the socket is writable, then makes one system call for each, three a
publish. Here what one turn of the loop emits goes out as one. Nothing is promised by a write, so nothing is lost that a
dying connection would not lose anyway: without its confirm a row stays, without its ack a delivery comes again.

`_sock`: pika hands out no descriptor of its connection. A forked child lets go of it, or the broker would take a killed
process for alive until the heartbeat says otherwise, and keep for it what it had not settled.

A test compares them with the installed pika; a release that changes them must change this file.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from pika import exceptions, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection

from spoolproof.forks import cut, let_go_in_child

_FRAME_HEAD = struct.Struct(">BHL")
_CONTENT_HEAD = struct.Struct(">HHQ")


class UnreadableProperties:
    """Stands for properties that could not be decoded. raw: the property flags and list as they arrived."""

    def __init__(self, raw: bytes, reason: str) -> None:
        self.raw = raw
        self.reason = reason
        self.message_id: str | None = None  # read by whoever matches returns; a return carries what we encoded


class Connection(AsyncioConnection):  # type: ignore[misc]
    """pika's connection, surviving content headers it cannot decode, and writing once per turn of the loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unwritten: list[bytes] = []  # bounded by the publish window, and by prefetch for acks
        super().__init__(*args, **kwargs)
        let_go_in_child(self)

    def let_go(self) -> None:
        """In a child: the broker must see this connection end with its process."""
        if self._transport is not None:
            cut(self._transport._sock.fileno())

    def write(self, frames: bytes) -> None:
        """Send whole frames, encoded by us, in the order of the calls and of what pika itself sends."""
        self._adapter_emit_data(frames)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write)
        self._unwritten.append(data)

    def _write(self) -> None:
        data = b"".join(self._unwritten)
        self._unwritten.clear()
        if self._transport is not None:  # the stream may have ended since
            super()._adapter_emit_data(data)

    def _read_frame(self) -> tuple[int, Any]:
        try:
            read: tuple[int, Any] = super()._read_frame()
        except Exception as error:  # decoding foreign bytes raises anything: KeyError, OverflowError, struct.error …
            return _unreadable(self._frame_buffer, error)
        return read


def _unreadable(data: bytes, error: Exception) -> tuple[int, Any]:
    """Return the content header frame at the head of `data`, undecoded; anything else fails as pika would."""
    kind, channel, size = _FRAME_HEAD.unpack_from(data)
    if kind != spec.FRAME_HEADER or isinstance(error, exceptions.InvalidFrameError):
        raise error
    payload = data[_FRAME_HEAD.size : _FRAME_HEAD.size + size]
    _, _, body_bytes = _CONTENT_HEAD.unpack_from(payload)
    reason = f"its properties cannot be decoded: {type(error).__name__}: {error}"
    header = frame.Header(channel, body_bytes, UnreadableProperties(payload[_CONTENT_HEAD.size :], reason))
    return _FRAME_HEAD.size + size + 1, header


def abort(connection: Connection, error: Exception) -> None:
    """Drop the connection at once; its close callback gets `error` on a later turn of the loop. Safe to repeat."""
    if not connection.is_closed:
        connection._terminate_stream(error)
