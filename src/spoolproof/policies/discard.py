"""Ends a result that nobody gets: one that is tried again, replaced, or late.

A response holds a connection. Dropped unclosed it keeps it until the collector comes, and a pool runs dry in an outage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from spoolproof.policies.call import Call
from spoolproof.policies.classifier import text_of
from spoolproof.policies.timeout import await_it, close_it, is_awaitable, within

logger = logging.getLogger("spoolproof.policies")

OnDiscard = Callable[[Any], object]

_CLOSE_SECONDS = 1.0  #: closing must not take longer than what it makes room for


async def discard(value: object, on_discard: OnDiscard | None, call: Call) -> None:
    """Hand a result to `on_discard`; None closes what has `aclose` or `close`. Never raises but a cancellation."""
    try:
        names = ("close",) if call.is_blocking else ("aclose", "close")
        ended = on_discard(value) if on_discard is not None else _close(value, *names)
        if is_awaitable(ended):
            if call.is_blocking:
                close_it(ended)
                raise TypeError(f"what ends a result of type {type(value).__name__} is async; here it has to block")
            await within(await_it(ended), _CLOSE_SECONDS, call.clock)
    except Exception as error:  # it would replace the answer that the caller gets
        logger.error("policies.on_discard_failed policy=%s error=%s", call.name, text_of(error))


def _close(value: object, *names: str) -> object:
    for name in names:
        if callable(getattr(type(value), name, None)):
            return getattr(value, name)()
    return None
