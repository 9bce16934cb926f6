"""The health endpoint on a port of its own, in a thread of its own, so that a blocked event loop is reported.

The thread holds a snapshot and asks the event loop for a newer one: once a second, and for every request, which waits
up to half a second for it. Asking is a callback on the loop; while one is unanswered no other is sent. A question
unanswered for 10 s means that the loop is blocked: the last snapshot is then marked so, and /live answers 503.

A process that is out of file descriptors is alive, and a restart would cost it its work: one descriptor is kept back
for the probe that asks meanwhile. What cannot be accepted even so is tried again after a moment.

Must never happen here: the end of the thread by anything but `stop`; a call into the service but through that callback;
a request that can hold the end up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer
from typing import Any

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import SettingsError
from spoolproof.forks import guard, let_go_in_child
from spoolproof.health.body import Answer
from spoolproof.health.endpoint import Request, Response, encode, respond
from spoolproof.health.events import CannotAccept, HealthFailed, HealthListening, RequestFailed, SnapshotFailed
from spoolproof.health.snapshot import Snapshot
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS = 0.1  #: before the next try: a connection that waits to be accepted would keep the thread spinning

_BUSY = encode(Answer(503, {"status": "unavailable", "reason": "too_many_requests"}))


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. port: 0 picks a free one; None is the default one, or the next free one above it."""

    host: str
    port: int | None


class View:
    """The newest snapshot the event loop gave, and for how long it has been silent. Used from several threads."""

    def __init__(self, take: Callable[[], Snapshot], loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._take = take
        self._loop = loop
        self._clock = clock
        self._snapshot = take()
        self._changed = threading.Condition()
        self._answers = 0
        self._asked_at: float | None = None

    def ask(self) -> int:
        """Ask the loop for a snapshot unless a question is open; returns the number of the answer to wait for."""
        with self._changed:
            wanted = self._answers + 1
            if self._asked_at is None:
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:  # the loop is closed: the process ends, the last snapshot stands
                    return wanted
                self._asked_at = self._clock.monotonic()
            return wanted

    def newest(self) -> Snapshot:
        """Return the loop's newest word, waiting a moment for it."""
        wanted = self.ask()
        with self._changed:
            self._changed.wait_for(lambda: self._answers >= wanted, timeout=limits.HEALTH_ANSWER_SECONDS)
            silent_seconds = 0.0 if self._asked_at is None else self._clock.monotonic() - self._asked_at
            if silent_seconds < limits.EVENT_LOOP_SILENT_SECONDS:
                return self._snapshot
            return replace(self._snapshot, at=self._clock.now(), is_loop_silent=True)

    def _answer(self) -> None:
        try:
            snapshot = self._take()
        except Exception as error:
            emit(SnapshotFailed(), error=error)
            snapshot = self._snapshot  # old, as its time says; but the loop turns, and is asked again
        with self._changed:
            self._snapshot = snapshot
            self._answers += 1
            self._asked_at = None
            self._changed.notify_all()


class HealthThread:
    """Serves the health endpoint until closed."""

    def __init__(self, address: Address, take: Callable[[], Snapshot], clock: Clock) -> None:
        self._address = address
        self._take = take
        self._clock = clock
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> None:
        """Listen and serve; call on the event loop. Raises SettingsError when the address cannot be had."""
        view = View(self._take, asyncio.get_running_loop(), self._clock)
        self._server = _listen(self._address, view, self._clock)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve, name="spoolproof-health", daemon=True)
        self._thread.start()
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        emit(HealthListening(url=f"http://{host}:{self.port}"))

    async def stop(self) -> None:
        """Close the port and end every request. Idempotent, safe before start."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is not None and thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, _close, server, thread)


def _close(server: _Server, thread: threading.Thread) -> None:
    server.end()
    thread.join()
    server.server_close()


def _listen(address: Address, view: View, clock: Clock) -> _Server:
    if address.port is not None:
        ports = [address.port]
    else:
        ports = list(range(limits.HEALTH_PORT_FIRST, limits.HEALTH_PORT_LAST + 1))
    for port in ports:
        try:
            return _Server(address.host, port, view, clock)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == ports[-1]:
                raise SettingsError([_fault(address, error)]) from error
    raise AssertionError("unreachable: there is at least one port")


def _fault(address: Address, error: OSError) -> str:
    reason = error.strerror or str(error)
    if address.port is None:
        last = limits.HEALTH_PORT_LAST
        return f"SPOOLPROOF_HEALTH_HOST={address.host}: no port from {limits.HEALTH_PORT_FIRST} to {last}: {reason}"
    return (
        f"SPOOLPROOF_HEALTH_PORT={address.port}: cannot listen on {address.host}: {reason}; "
        "name another port, or 0 for any free one"
    )


class _Server(HTTPServer):
    """A thread per request, at most 32; closing ends them all."""

    request_queue_size = 4 * limits.HEALTH_REQUESTS_MAX  # who is over the limit is told so, not left to try again

    def __init__(self, host: str, port: int, view: View, clock: Clock) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.view = view
        self.timeout = limits.HEALTH_BEAT_SECONDS
        self._clock = clock
        self._has_ended = threading.Event()
        self._lock = threading.Lock()
        self._requests: dict[threading.Thread, tuple[socket.socket, float]] = {}
        self._folded = Folded(clock)
        self._spare: int | None = None
        with guard:
            super().__init__((host, port), _Handler)
            let_go_in_child(self)

    def let_go(self) -> None:
        """In a child: the port must be free for the next process when this one ends."""
        for one in (self.socket, *(request for request, _ in self._requests.values())):
            with contextlib.suppress(OSError):
                one.close()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks DNS for our name, which may take minutes

    def serve(self) -> None:
        """Answer until ended, and ask the event loop for news once a second."""
        while not self._has_ended.is_set():
            try:
                self._keep_spare()
                self.handle_request()
                self.view.ask()
                self._cut_slow_callers()
            except Exception as error:  # a bug of ours, or no memory: the next probe may fare better
                self._folded.emit(HealthFailed(error=type(error).__name__), error=error)
                self._has_ended.wait(_PAUSE_SECONDS)

    def end(self) -> None:
        """Let `serve` return; a connection of our own wakes it."""
        self._has_ended.set()
        with contextlib.suppress(OSError):  # it wakes by itself within a second
            host, port = str(self.server_address[0]), self.server_address[1]
            socket.create_connection((host, port), timeout=limits.HEALTH_ANSWER_SECONDS).close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, if need be in the place of the spare descriptor. Raises OSError, which means: not now."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._folded.emit(CannotAccept(error=error.strerror or str(error)))
        try:
            self._drop_spare()
            return super().get_request()
        except OSError:
            self._has_ended.wait(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="spoolproof-health-request", daemon=True
        )
        with self._lock:
            is_busy = len(self._requests) >= limits.HEALTH_REQUESTS_MAX
            if not is_busy:
                self._requests[thread] = (request, self._clock.monotonic())
        if is_busy:
            _refuse(request)
            self.shutdown_request(request)
        else:
            try:
                thread.start()
            except RuntimeError:  # no thread to be had: its place must not stay taken
                self._forget(thread)
                raise

    def server_close(self) -> None:
        super().server_close()
        self._drop_spare()
        with self._lock:
            running = list(self._requests.items())
        for thread, (request, _) in running:
            _hang_up(request)
            thread.join()

    def _cut_slow_callers(self) -> None:
        started_before = self._clock.monotonic() - limits.HEALTH_REQUEST_SECONDS
        with self._lock:
            slow = [request for request, started_at in self._requests.values() if started_at < started_before]
        for request in slow:
            _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        emit(RequestFailed(error=type(error).__name__), error=error)  # a caller that hung up is not our trouble

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self._requests.pop(thread, None)

    def _keep_spare(self) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):  # it is tried at every turn
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        request.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for this caller


def _refuse(request: socket.socket) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in _BUSY.headers)
    with contextlib.suppress(OSError):  # it is gone already
        request.settimeout(limits.HEALTH_ANSWER_SECONDS)
        request.sendall(f"HTTP/1.0 503 Service Unavailable\r\n{head}\r\n".encode() + _BUSY.body)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = limits.HEALTH_REQUEST_SECONDS

    def _answer(self) -> None:
        request = Request(
            method=self.command,
            path=self.path.partition("?")[0],
            client=self.client_address[0],
            headers=[name.lower() for name in self.headers],
        )
        self._send(respond(request, self.server.view.newest()))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def version_string(self) -> str:
        """Return what every caller may know of us."""
        return "spoolproof"

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are not logged."""

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)
