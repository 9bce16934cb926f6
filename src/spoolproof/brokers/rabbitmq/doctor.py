"""One look at a broker for `spoolproof doctor`: connects, logs in, reads its version, declares nothing, leaves."""

from __future__ import annotations

import asyncio
import contextlib

from spoolproof import limits
from spoolproof.backoff import RandomSource
from spoolproof.brokers.rabbitmq.connection import BrokerConnection
from spoolproof.brokers.rabbitmq.pika_internals import Connection
from spoolproof.brokers.rabbitmq.urls import parse_urls
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.ports.broker import Spawn
from spoolproof.telemetry.logging import silence


class _Visitor:
    """Uses a connection for nothing but its greeting."""

    def __init__(self) -> None:
        self.version = "of unknown version"

    async def opened(self, connection: Connection) -> None:
        self.version = str((connection.server_properties or {}).get("version", self.version))

    def lost(self, reason: str) -> None:
        pass

    def blocked(self, is_blocked: bool) -> None:
        pass


async def look(url: str, clock: Clock, random: RandomSource, spawn: Spawn) -> str:
    """Return what answers at one URL. Raises BrokerUnavailable saying why nothing does, and SettingsError."""
    silence("pika")
    visitor = _Visitor()
    connection = BrokerConnection(
        *("doctor-0", "doctor"),
        parse_urls([url]),
        visitor,
        identity="spoolproof/doctor",
        clock=clock,
        random=random,
        retry_first_seconds=limits.CONNECT_SECONDS,
        rounds_max=1,
    )
    work = spawn(connection.run(), "doctor.broker")
    try:
        async with asyncio.timeout(2 * limits.CONNECT_SECONDS):
            await connection.start_settled.wait()
    except TimeoutError:
        raise BrokerUnavailable(f"no answer within {2 * limits.CONNECT_SECONDS:g} s") from None
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await connection.stop()
    if connection.start_error is not None:
        # its advice is for a service that waits; here the failure itself is the news
        raise BrokerUnavailable(connection.status().last_error or str(connection.start_error))
    return f"RabbitMQ {visitor.version}"
