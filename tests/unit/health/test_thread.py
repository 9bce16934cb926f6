"""The endpoint in its own thread, asked over real sockets while the event loop runs, or does not."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.errors import SettingsError
from spoolproof.health.snapshot import Local, Snapshot
from spoolproof.health.thread import Address, HealthThread

ANY_PORT = Address("127.0.0.1", 0)


def snapshot(**facts: Any) -> Snapshot:
    return Snapshot(at=datetime.now(UTC), service="shop", version="1", local=Local(**{"is_started": True, **facts}))


@asynccontextmanager
async def serving(take: Callable[[], Snapshot] = snapshot, address: Address = ANY_PORT) -> AsyncIterator[HealthThread]:
    thread = HealthThread(address, take, SystemClock())
    thread.start()
    try:
        yield thread
    finally:
        await thread.stop()


def exchange(port: int, request: bytes, host: str = "127.0.0.1") -> tuple[int, Any]:
    """Send a request and return (status, body), blocking whoever calls."""
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(request)
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else None


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, Any]:
    return exchange(port, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), host)


async def test_a_probe_is_answered_with_the_newest_state() -> None:
    """SIGTERM fails readiness at once, not at the next second."""
    local: dict[str, Any] = {}
    async with serving(lambda: snapshot(**local)) as thread:
        before = await asyncio.to_thread(get, thread.port, "/ready?verbose=1")
        local["is_draining"] = True
        after = await asyncio.to_thread(get, thread.port, "/ready")

    assert [200, 503] == [before[0], after[0]]
    assert "draining" == after[1]["reason"]


async def test_a_blocked_event_loop_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a probe that times out says nothing; 503 with the reason does. The limit is shortened, the block is real."""
    monkeypatch.setattr(limits, "EVENT_LOOP_SILENT_SECONDS", 1.0)
    async with serving() as thread:
        fine = await asyncio.to_thread(get, thread.port, "/live")
        deadline = time.monotonic() + 20
        blocked = get(thread.port, "/live")  # blocks this loop, as a user's blocking call would
        while blocked[0] == 200 and time.monotonic() < deadline:
            blocked = get(thread.port, "/live")
        ready = get(thread.port, "/ready")
        await asyncio.sleep(0)
        again = await asyncio.to_thread(get, thread.port, "/live")

    assert (200, {"status": "ok"}) == fine
    assert (503, {"status": "unavailable", "reason": "event_loop_blocked"}) == blocked
    assert (503, "event_loop_blocked") == (ready[0], ready[1]["reason"])
    assert (200, {"status": "ok"}) == again


async def test_the_thirty_third_request_at_once_is_turned_away() -> None:
    """A probe storm must not become a thread storm; the slot of a caller who says nothing is freed."""
    async with serving() as thread:
        silent = [socket.create_connection(("127.0.0.1", thread.port)) for _ in range(limits.HEALTH_REQUESTS_MAX)]
        try:
            turned_away = await asyncio.to_thread(get, thread.port, "/live")
        finally:
            for one in silent:
                one.close()
        deadline = time.monotonic() + 5
        while (freed := await asyncio.to_thread(get, thread.port, "/live"))[0] != 200 and time.monotonic() < deadline:
            pass

    assert (503, {"status": "unavailable", "reason": "too_many_requests"}) == turned_away
    assert 200 == freed[0]


async def test_a_caller_who_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then would hold a slot for ever."""
    monkeypatch.setattr(limits, "HEALTH_REQUEST_SECONDS", 0.3)

    def drip(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            for byte in b"GET /live HTTP/1.0\r\nx-slow: " + b"a" * 1000:
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return b""
                connection.settimeout(0.05)
                try:
                    return connection.recv(100)
                except TimeoutError:
                    continue
                except OSError:
                    return b""
        raise AssertionError("never cut off")

    async with serving() as thread:
        assert b"" == await asyncio.to_thread(drip, thread.port)


async def test_stopping_does_not_wait_for_a_silent_caller() -> None:
    """A drain must not take as long as the slowest monitor."""
    async with serving() as thread:
        silent = socket.create_connection(("127.0.0.1", thread.port))
        await asyncio.to_thread(get, thread.port, "/live")
        started = time.monotonic()
        await thread.stop()
        seconds = time.monotonic() - started
        silent.close()

    assert seconds < 3


async def test_stop_is_idempotent_and_safe_before_start() -> None:
    """A start that failed early is ended like any other."""
    thread = HealthThread(Address("127.0.0.1", 0), snapshot, SystemClock())

    await thread.stop()
    thread.start()
    await thread.stop()
    await thread.stop()

    with pytest.raises(ConnectionRefusedError):
        get(thread.port, "/live")


async def test_a_busy_default_port_moves_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two services on a developer's machine start without configuration."""
    async with serving() as first:
        monkeypatch.setattr(limits, "HEALTH_PORT_FIRST", first.port)
        monkeypatch.setattr(limits, "HEALTH_PORT_LAST", first.port + 20)
        async with serving(address=Address("127.0.0.1", None)) as second:
            assert first.port < second.port <= first.port + 20


async def test_a_busy_configured_port_is_a_fault() -> None:
    """Whoever names a port has told a probe about it; another one would never be asked."""
    async with serving() as first:
        second = HealthThread(Address("127.0.0.1", first.port), snapshot, SystemClock())
        with pytest.raises(SettingsError, match=f"SPOOLPROOF_HEALTH_PORT={first.port}: cannot listen on 127.0.0.1"):
            second.start()


async def test_no_free_default_port_is_a_fault_that_names_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search has an end."""
    async with serving() as first:
        monkeypatch.setattr(limits, "HEALTH_PORT_FIRST", first.port)
        monkeypatch.setattr(limits, "HEALTH_PORT_LAST", first.port)
        second = HealthThread(Address("127.0.0.1", None), snapshot, SystemClock())
        with pytest.raises(SettingsError, match=f"no port from {first.port} to {first.port}"):
            second.start()


async def test_an_address_that_is_not_ours_is_a_fault() -> None:
    """192.0.2.1 is nobody's (RFC 5737)."""
    thread = HealthThread(Address("192.0.2.1", 0), snapshot, SystemClock())

    with pytest.raises(SettingsError, match=r"192\.0\.2\.1"):
        thread.start()


async def test_ipv6_is_served() -> None:
    """Clusters without IPv4 exist."""
    try:
        socket.socket(socket.AF_INET6).close()
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with serving(address=Address("::1", 0)) as thread:
        assert 200 == (await asyncio.to_thread(get, thread.port, "/live", "::1"))[0]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(method: str) -> None:
    """A probe changes nothing."""
    async with serving() as thread:
        request = f"{method} /live HTTP/1.0\r\n\r\n".encode()
        assert 405 == (await asyncio.to_thread(exchange, thread.port, request))[0]


async def test_head_has_no_body() -> None:
    """Some monitors use it."""
    async with serving() as thread:
        assert (200, None) == await asyncio.to_thread(exchange, thread.port, b"HEAD /live HTTP/1.0\r\n\r\n")


async def test_a_process_out_of_descriptors_still_answers_its_probes() -> None:
    """It is alive: a probe that times out would have it killed, and with it the work that waits for a descriptor."""
    with starving() as (port, say):
        say("starve")
        starved = [await asyncio.to_thread(get, port, "/live") for _ in range(3)]
        say("feed")
        fed = await asyncio.to_thread(get, port, "/live")

    assert [(200, {"status": "ok"})] * 4 == [*starved, fed]


async def test_a_thread_that_cannot_accept_waits_without_spinning_and_goes_on() -> None:
    """With its last descriptor in use by a silent caller it must neither end nor burn the core the service needs."""
    with starving() as (port, say), socket.socket() as silent, socket.socket() as late:
        say("starve")
        silent.connect(("127.0.0.1", port))
        late.connect(("127.0.0.1", port))
        late.sendall(b"GET /live HTTP/1.0\r\n\r\n")
        late.settimeout(1.0)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(late.recv, 100)
        cpu_seconds = float(say("feed"))
        late.settimeout(5.0)
        answer = await asyncio.to_thread(late.recv, 100)

    assert answer.startswith(b"HTTP/1.0 200 ")
    assert cpu_seconds < 0.5


async def test_a_snapshot_that_cannot_be_made_does_not_end_the_asking() -> None:
    """One error in it would otherwise read as a blocked event loop for ever, and have the process killed."""
    failures = [RuntimeError("planted")]
    taken = iter([snapshot()])

    def take() -> Snapshot:
        first = next(taken, None)
        if first is None and failures:
            raise failures.pop()
        return first or snapshot(is_draining=True)

    async with serving(take) as thread, asyncio.timeout(20):
        # the thread asks by itself too: which of the questions meets the error is not known
        while (await asyncio.to_thread(get, thread.port, "/ready"))[0] != 503 or failures:
            await asyncio.sleep(0.01)

    assert not failures


@contextmanager
def starving() -> Iterator[tuple[int, Callable[[str], str]]]:
    """A child process that can be starved: its port, and what sends it a command and returns its answer."""
    program = Path(__file__).with_name("starved.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def say(command: str) -> str:
            stdin.write(f"{command}\n")
            stdin.flush()
            return stdout.readline()

        try:
            yield int(stdout.readline()), say
        finally:
            stdin.close()
            child.wait(timeout=10)
