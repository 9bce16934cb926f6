"""Questions to the broker with a time limit: pika's callbacks as awaitables.

pika never calls back a pending question when its channel closes, so every one also fails from the close callback. An
answer that does not come within the limit means the peer is dead: the caller aborts the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pika import exceptions

from spoolproof import limits
from spoolproof.brokers.rabbitmq.events import CallbackFailed
from spoolproof.brokers.rabbitmq.failure import WRONG_STATE_ERRORS, one_line
from spoolproof.brokers.rabbitmq.pika_internals import Connection
from spoolproof.errors import BrokerUnavailable
from spoolproof.telemetry.events import emit

F = TypeVar("F", bound=Callable[..., Any])


def guarded(callback: F) -> Callable[..., None]:
    """Wrap a callback for pika: one that raises would tear the whole connection down."""

    def call(*args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            emit(CallbackFailed(callback=getattr(callback, "__qualname__", str(callback))), error=error)

    return call


class ChannelClosed(Exception):
    """The broker closed the channel over the last question. code: the protocol's, 0 when the connection went."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"{code} {text}")


def closed_by(error: BaseException) -> ChannelClosed:
    """Return a channel's closing reason as ours."""
    code = error.reply_code if isinstance(error, exceptions.ChannelClosedByBroker) else 0
    return ChannelClosed(code, str(getattr(error, "reply_text", "")) if code else one_line(error))


class RpcChannel:
    """An open channel to ask questions on."""

    def __init__(self) -> None:
        self.pika: Any = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._closed: ChannelClosed | None = None

    @classmethod
    async def open(cls, connection: Connection) -> RpcChannel:
        """Open a channel. Raises ChannelClosed, or BrokerUnavailable when no answer comes."""
        channel = cls()

        def start(callback: Callable[..., None]) -> None:
            channel.pika = connection.channel(on_open_callback=callback)
            channel.pika.add_on_close_callback(guarded(channel._on_close))

        await channel._ask(start, limits.RPC_SECONDS)
        return channel

    async def call(self, method: str, *, timeout_seconds: float = limits.RPC_SECONDS, **arguments: Any) -> Any:
        """Ask by a method of pika's channel and return its answer. Raises ChannelClosed or BrokerUnavailable."""
        ask = getattr(self.pika, method)
        return await self._ask(lambda callback: ask(callback=callback, **arguments), timeout_seconds)

    def close(self) -> None:
        """Close without waiting."""
        if self.pika is not None and self.pika.is_open:
            self.pika.close()

    async def _ask(self, start: Callable[[Callable[..., None]], Any], timeout_seconds: float) -> Any:
        if self._closed is not None:
            raise self._closed
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.add(answer)

        def settle(frame: Any) -> None:
            if not answer.done():
                answer.set_result(frame)

        try:
            start(guarded(settle))
            async with asyncio.timeout(timeout_seconds):
                return await answer
        except TimeoutError:
            raise BrokerUnavailable(f"the broker did not answer within {timeout_seconds:g} s") from None
        except WRONG_STATE_ERRORS as error:
            raise ChannelClosed(0, one_line(error)) from error
        finally:
            self._pending.discard(answer)

    def _on_close(self, _channel: Any, reason: BaseException) -> None:
        self._closed = closed_by(reason)
        for answer in self._pending:
            if not answer.done():
                answer.set_exception(self._closed)
