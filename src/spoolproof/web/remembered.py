"""The last document of each page, for when the store is away: what was true then, and how long ago that is."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import LimitReached, StoreUnavailable
from spoolproof.web.page import Document

READ_SECONDS = 2.0
_KEPT_MAX = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """A document, or the last one with why there is no newer. document: None where there never was one."""

    document: Document | None
    at: datetime
    age_seconds: float = 0.0
    error: str = ""


class Remembered:
    """Documents by who asked, and page and query: some say what is yours."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[Document, datetime, float]] = OrderedDict()

    async def read(self, key: tuple[str, str], make: Callable[[], Awaitable[Document]]) -> Reading:
        """Return a new document, or the last one where the store does not answer in two seconds.

        Raises whatever else making it raises.
        """
        try:
            async with asyncio.timeout(READ_SECONDS):
                document = await make()
        except (StoreUnavailable, LimitReached, TimeoutError) as error:
            why = "it did not answer within 2 s" if isinstance(error, TimeoutError) else error_line(error)
            kept = self._kept.get(key)
            if kept is None:
                return Reading(None, self._clock.now(), error=why)
            return Reading(kept[0], kept[1], self._clock.monotonic() - kept[2], why)
        self._kept[key] = (document, self._clock.now(), self._clock.monotonic())
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return Reading(document, self._clock.now())
