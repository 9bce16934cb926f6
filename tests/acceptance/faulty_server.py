"""An HTTP service that misbehaves on order: real sockets on 127.0.0.1, one connection per request.

What it answers when it is well is a function; how it is, is a mode. `stop` closes the listening socket, so that
connections are refused, and `start` opens it again on the same port. A new mode lets go of every request that still
hangs in the old one: it gets no answer.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

HEALTH = "/health"


class Mode(StrEnum):
    """How it is. flapping and busy look healthy: only every other, or no, real request of theirs is served."""

    OK = "ok"
    SLOW = "slow"  #: answers well after `slow_seconds`
    FLAPPING = "flapping"  #: 503 to every other request
    ERROR = "error"  #: 503
    BUSY = "busy"  #: 429 with Retry-After
    HANG = "hang"  #: never answers


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that arrived. at: monotonic seconds. key: its Idempotency-Key, or ""."""

    at: float
    method: str
    path: str
    key: str
    body: Any


Answer = Callable[[Asked], tuple[int, Any]]


class FaultyServer:
    """A service of `answer` on `port`, listening from `__enter__` to `__exit__`."""

    def __init__(self, answer: Answer, port: int, *, slow_seconds: float, retry_after_seconds: int = 2) -> None:
        self._answer = answer
        self._slow_seconds = slow_seconds
        self._retry_after_seconds = retry_after_seconds
        self._port = port
        self._lock = threading.Lock()
        self._mode = Mode.OK
        self._changed = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.asked: list[Asked] = []  #: real requests, without health checks
        self.turned_away: list[Asked] = []  #: those answered with 429

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        changed, self._changed = self._changed, threading.Event()
        changed.set()

    def start(self) -> None:
        """Listen. Does nothing when it does."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self._port), _handler_of(self))
            self._thread = threading.Thread(
                target=self._server.serve_forever, args=(0.02,), name=f"faulty {self._port}"
            )
            self._thread.start()

    def stop(self) -> None:
        """Refuse connections. Does nothing when it does."""
        server, self._server = self._server, None
        if server is not None:
            self.mode = self.mode  # what hangs goes
            server.shutdown()
            server.server_close()
            assert self._thread is not None
            self._thread.join()

    def mend(self) -> None:
        """Be well."""
        self.mode = Mode.OK
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def serve(self, asked: Asked) -> tuple[int, dict[str, str], Any] | None:
        """Return status, headers and body for a request, or None for no answer at all."""
        mode, changed = self._mode, self._changed
        with self._lock:
            number = len(self.asked)
            if asked.path != HEALTH:
                self.asked.append(asked)
        if mode is Mode.HANG:
            changed.wait()
            return None
        if mode is Mode.SLOW and asked.path != HEALTH:
            changed.wait(self._slow_seconds)
        if mode is Mode.ERROR or (mode is Mode.FLAPPING and number % 2 == 0 and asked.path != HEALTH):
            return 503, {}, {"detail": "out of order"}
        if asked.path == HEALTH:
            return 200, {}, {"status": "ok"}
        if mode is Mode.BUSY:
            self.turned_away.append(asked)
            return 429, {"Retry-After": str(self._retry_after_seconds)}, {"detail": "too many requests"}
        with self._lock:
            status, body = self._answer(asked)
        return status, {}, body


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined on close: nothing may be left behind

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no error of ours."""


def _handler_of(server: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            key = self.headers.get("Idempotency-Key", "")
            served = server.serve(Asked(time.monotonic(), self.command, self.path, key, body))
            if served is None:
                return
            status, headers, answer = served
            content = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    return Handler
