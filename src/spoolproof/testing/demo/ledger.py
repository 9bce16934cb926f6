"""What the clients saw: one JSON line before each call and one after it, each on disk before the next step.

Times are CLOCK_MONOTONIC, which all processes of a Linux machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec


class Did(StrEnum):
    """sent: a call begins. The others end it: accepted; declined, since there is none left; put off with 503 or 202;
    unanswered; answered otherwise (a bug)."""

    SENT = "sent"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    OTHERWISE = "otherwise"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. at: monotonic seconds. detail: status or error, where that says more."""

    at: float
    order_id: str
    did: Did
    detail: str = ""


class Ledger:
    """Writes the file. One process, one writer."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, order_id: str, did: Did, detail: str = "") -> None:
        """Add a line; it is on disk when this returns."""
        line = Line(time.monotonic(), order_id, did, detail)
        os.write(self._descriptor, msgspec.json.encode(line) + b"\n")
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class LedgerReader:
    """Follows the file while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._decoder = msgspec.json.Decoder(Line)
        self.lines: list[Line] = []

    def read(self) -> Sequence[Line]:
        """Return the complete lines that are new since the last call, and keep them in `lines`."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return ()
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        new = [self._decoder.decode(line) for line in complete.splitlines()]
        self.lines += new
        return new
