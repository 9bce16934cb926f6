"""What an application puts around every publish: the place for tenants, audits and headers of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from spoolproof.errors import RegistrationError
from spoolproof.message import Message, Outgoing, check_message, check_user_headers
from spoolproof.outbox.receipt import Receipt

CallNext = Callable[[Message], Awaitable[Receipt]]
Around = Callable[[Message, CallNext], Coroutine[Any, Any, Receipt]]
Keep = Callable[[Outgoing], Awaitable[Receipt]]


class PublishAround:
    """Those of one service; the first registered is the outermost."""

    def __init__(self) -> None:
        self._functions: list[Around] = []

    def __bool__(self) -> bool:
        return bool(self._functions)

    def add(self, function: Around) -> None:
        """Register one. Raises RegistrationError."""
        if not inspect.iscoroutinefunction(function):
            raise RegistrationError(f"@service.around_publish on {function!r}: write `async def f(message, call_next)`")
        self._functions.append(function)

    async def through(self, outgoing: Outgoing, keep: Keep) -> Receipt:
        """Keep a message through all of them; what they made of it is checked as what users give."""

        async def last(message: Message) -> Receipt:
            check_user_headers(message.headers)
            check_message(message)
            return await keep(msgspec.structs.replace(outgoing, message=message))

        call: CallNext = last
        for function in reversed(self._functions):
            call = _before(function, call)
        return await call(outgoing.message)

    def through_at_once(self, outgoing: Outgoing, keep: Callable[[Outgoing], Receipt]) -> Receipt:
        """The same where there is no event loop. Raises RegistrationError when one of them waits for something."""

        async def kept(outgoing: Outgoing) -> Receipt:
            return keep(outgoing)

        running = self.through(outgoing, kept)
        try:
            running.send(None)
        except StopIteration as end:
            receipt: Receipt = end.value
            return receipt
        running.close()
        raise RegistrationError("publish_sync has no event loop, and an @service.around_publish waits for something")


def _before(function: Around, call: CallNext) -> CallNext:
    return lambda message: function(message, call)
