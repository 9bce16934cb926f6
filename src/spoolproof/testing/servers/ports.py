"""Free ports of 127.0.0.1 that stay ours while a server is down.

A port the kernel hands out for `bind(0)` is in the ephemeral range: while a killed server is down, any outgoing
connection may be given its port, and the server cannot come back. So ports are drawn below that range, and reserved
between processes by an abstract Unix socket, which the kernel releases when its process ends, however it ends.
"""

from __future__ import annotations

import os
import random
import socket

PORT_MIN = 20_000
PORT_MAX = 32_000  #: Linux's ephemeral range begins at 32768 (ip(7), ip_local_port_range)
TRIES_MAX = 200

_reservations: dict[int, int] = {}  #: port -> file descriptor that reserves it


def free_port() -> int:
    """Reserve a free TCP port of 127.0.0.1 until `release_port` or the end of this process."""
    for _ in range(TRIES_MAX):
        port = random.randrange(PORT_MIN, PORT_MAX)
        reservation = _reserve(port)
        if reservation is None:
            continue
        if _is_free(port):
            _reservations[port] = reservation
            return port
        os.close(reservation)
    raise OSError(f"no free port between {PORT_MIN} and {PORT_MAX} after {TRIES_MAX} tries")


def release_port(port: int) -> None:
    """Give a port back. Does nothing for a port that is not reserved here."""
    reservation = _reservations.pop(port, None)
    if reservation is not None:
        os.close(reservation)


def accepts_connections(port: int) -> bool:
    """Say whether something listens on this port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _reserve(port: int) -> int | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as reservation:
        try:
            reservation.bind(f"\0spoolproof-port-{port}")
        except OSError:
            return None
        return reservation.detach()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
