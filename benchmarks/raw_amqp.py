"""AMQP 0-9-1 over a blocking socket: frames encoded beforehand, answers parsed by hand: the limit.

Not for use: no errors, no reconnect, no heartbeat, and it trusts the broker to split frames as RabbitMQ does.
"""

from __future__ import annotations

import socket
import struct
import time
from urllib.parse import unquote, urlsplit

from pika import frame, spec

from benchmarks import message
from spoolproof.brokers.rabbitmq.encoding import publish_frames
from spoolproof.brokers.rabbitmq.properties import to_properties

_FRAME_BYTES_MAX = 131072
_HEAD = struct.Struct(">BHL")
_METHOD = struct.Struct(">HH")
_SETTLE = struct.Struct(">QB")
_BASIC_ACK = (60, 80)
_BASIC_DELIVER = (60, 60)


class RawChannel:
    """Channel 1 of a connection of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = bytearray()
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._next()
        plain = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
        self._send(0, spec.Connection.StartOk(client_properties={}, mechanism="PLAIN", response=plain))
        self._next()
        self._send(0, spec.Connection.TuneOk(channel_max=8, frame_max=_FRAME_BYTES_MAX, heartbeat=0))
        self._send(0, spec.Connection.Open(virtual_host=unquote(parts.path.removeprefix("/")) or "/"))
        self._next()
        self.ask(spec.Channel.Open())

    def ask(self, method: spec.amqp_object.Method) -> None:
        """Send a method and wait for its answer."""
        self._send(1, method)
        self._next()

    def frames(self) -> list[tuple[int, bytes]]:
        """Wait for bytes; return every whole frame as (kind, payload)."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the broker closed the connection")
        self._data += chunk
        return self._whole()

    def _whole(self) -> list[tuple[int, bytes]]:
        found = []
        data, start, end = self._data, 0, len(self._data)
        while end - start >= 8:
            kind, _, size = _HEAD.unpack_from(data, start)
            if end - start < size + 8:
                break
            found.append((kind, bytes(data[start + 7 : start + 7 + size])))
            start += size + 8
        del data[:start]
        return found

    def _send(self, channel: int, method: spec.amqp_object.Method) -> None:
        self.socket.sendall(frame.Method(channel, method).marshal())

    def _next(self) -> None:
        while not self.frames():
            pass


def publishes(queue: str, ids: list[str]) -> list[bytes]:
    """Return each standard message as the bytes of its three frames: mandatory, persistent, to a queue."""
    encoded = message.body()
    return [
        publish_frames(
            1,
            "",
            queue,
            to_properties(message.outgoing(one, encoded, queue).message),
            encoded,
            frame_max=_FRAME_BYTES_MAX,
        )
        for one in ids
    ]


def publish_all(url: str, queue: str, count: int, window: int) -> float:
    """Publish so many standard messages with confirms; return the seconds from the first write to the last confirm."""
    packets = publishes(queue, message.message_ids(count))
    channel = RawChannel(url)
    channel.ask(spec.Confirm.Select())
    sent = confirmed = 0
    started = time.perf_counter()
    while confirmed < count:
        room = min(count, confirmed + window)
        if room > sent:
            channel.socket.sendall(b"".join(packets[sent:room]))
            sent = room
        for kind, payload in channel.frames():
            if kind != spec.FRAME_METHOD or _METHOD.unpack_from(payload) != _BASIC_ACK:
                raise RuntimeError("something else than a confirm arrived")
            tag, multiple = _SETTLE.unpack_from(payload, 4)
            # confirms of a quorum queue come in order; a single one out of order would only shrink the window
            confirmed = max(confirmed, tag) if multiple else confirmed + 1
    seconds = time.perf_counter() - started
    channel.socket.close()
    return seconds


def consume_all(url: str, queue: str, count: int, prefetch: int) -> float:
    """Consume so many messages and ack each; return the seconds from the first delivery to the last."""
    channel = RawChannel(url)
    channel.ask(spec.Basic.Qos(prefetch_count=prefetch))
    channel._send(1, spec.Basic.Consume(queue=queue))
    started, seen, tag = 0.0, 0, 0
    while seen < count:
        acks = []
        for kind, payload in channel.frames():
            if kind == spec.FRAME_METHOD and _METHOD.unpack_from(payload) == _BASIC_DELIVER:
                started = started or time.perf_counter()
                tag_at = 5 + payload[4]
                (tag,) = struct.unpack_from(">Q", payload, tag_at)
            elif kind == spec.FRAME_BODY:
                seen += 1
                acks.append(b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50" + _SETTLE.pack(tag, 0) + b"\xce")
        if acks:
            channel.socket.sendall(b"".join(acks))
    seconds = time.perf_counter() - started
    time.sleep(0.5)  # a quorum queue forgets acks that it has not applied when their channel closes
    channel.socket.close()
    return seconds
