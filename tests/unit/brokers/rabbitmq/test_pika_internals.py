"""The private names of pika we use are what we think they are; a header it cannot decode is survived."""

from __future__ import annotations

import ast
import inspect
import struct
from pathlib import Path

import pika
import pytest
from pika import BasicProperties, exceptions, frame
from pika.adapters.base_connection import BaseConnection
from pika.adapters.utils.io_services_utils import _AsyncTransportBase
from pika.connection import Connection as PikaConnection

import spoolproof.brokers.rabbitmq as package
from spoolproof.brokers.rabbitmq.pika_internals import Connection, UnreadableProperties, _unreadable

CONTENT_CLASS = 60
HEADERS_FLAG = 1 << 13


def test_the_installed_pika_reads_frames_and_terminates_streams_as_we_expect() -> None:
    """A release of pika that changes either must be read before it is allowed."""
    assert "1.4" == ".".join(pika.__version__.split(".")[:2])
    assert ["self"] == list(inspect.signature(PikaConnection._read_frame).parameters)
    assert "return frame.decode_frame(self._frame_buffer)" in inspect.getsource(PikaConnection._read_frame)
    assert "self._read_frame()" in inspect.getsource(PikaConnection._on_data_available)
    assert ["self", "error"] == list(inspect.signature(PikaConnection._terminate_stream).parameters)
    assert "self._adapter_disconnect_stream()" in inspect.getsource(PikaConnection._terminate_stream)
    assert "self._transport.write(data)" in inspect.getsource(BaseConnection._adapter_emit_data)
    assert "self._transport = None" in inspect.getsource(BaseConnection)
    assert "self._sock = sock" in inspect.getsource(_AsyncTransportBase)


def test_no_other_module_uses_a_private_name_of_another_object() -> None:
    """Whatever pika does not promise is in one file, where an upgrade looks for it."""
    used = set()
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_private = (
                isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
            )
            if is_private and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "channel", "cls")):
                used.add((path.name, node.attr))

    names = ("_adapter_emit_data", "_read_frame", "_sock", "_terminate_stream")
    assert {("pika_internals.py", name) for name in names} == used


def header_frame(table: bytes) -> bytes:
    payload = struct.pack(">HHQHI", CONTENT_CLASS, 0, 5, HEADERS_FLAG, len(table)) + table
    return struct.pack(">BHL", 2, 7, len(payload)) + payload + b"\xce"


MILLISECONDS = b"\x01tT" + struct.pack(">Q", 1_700_000_000_000)
UNKNOWN_TYPE = b"\x01t?"
CUT_SHORT = b"\x01tl\x00"


@pytest.mark.parametrize("table", [MILLISECONDS, UNKNOWN_TYPE, CUT_SHORT])
def test_a_content_header_that_cannot_be_decoded_becomes_a_fault(table: bytes) -> None:
    """L17: as an exception it would close the connection, be delivered again, and do it again for ever."""
    data = header_frame(table) + b"next frame"
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever pika raises today is what must be survived
        frame.decode_frame(data)

    consumed, header = _unreadable(data, caught.value)

    assert len(data) - len(b"next frame") == consumed
    assert (7, 5) == (header.channel_number, header.body_size)
    assert isinstance(header.properties, UnreadableProperties)
    assert header.properties.raw.endswith(table)
    assert type(caught.value).__name__ in header.properties.reason


def test_frames_that_are_no_content_header_fail_as_before() -> None:
    """Only properties are another publisher's doing; anything else broken means the stream cannot be trusted."""
    method = frame.Method(1, pika.spec.Basic.Ack(1)).marshal()
    error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        _unreadable(method, error)

    cut = header_frame(MILLISECONDS)[:-1] + b"\x00"
    with pytest.raises(exceptions.InvalidFrameError):
        _unreadable(cut, exceptions.InvalidFrameError("no end"))


def test_readable_frames_pass_untouched() -> None:
    """The override costs one call."""
    connection = Connection.__new__(Connection)
    properties = BasicProperties(message_id="m-1", headers={"a": 1})
    connection._frame_buffer = frame.Header(3, 10, properties).marshal()

    consumed, header = connection._read_frame()

    assert len(connection._frame_buffer) == consumed
    assert properties == header.properties
