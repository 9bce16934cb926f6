"""The endpoints as this process last saw them, with the keys they sign with.

Looked at every 5 s, and at once when a row names one that is not here: it may have been added since. Only a look that
began after that tells that it is gone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import InvalidEndpoint
from spoolproof.ports.webhooks import Endpoint, EndpointState, Webhooks
from spoolproof.webhooks.signature import key_of


class Directory:
    """What is known of every endpoint."""

    def __init__(self, webhooks: Webhooks, *, clock: Clock) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self.endpoints: dict[str, Endpoint] = {}
        self.faults: dict[str, str] = {}  #: why one cannot sign
        self._keys: dict[str, Sequence[bytes]] = {}
        self._asked: set[str] = set()
        self._gone: set[str] = set()
        self._look_at = float("-inf")
        self._stirred = asyncio.Event()

    async def look_when_due(self) -> None:
        """Look again every 5 s, or when somebody asked. Raises StoreUnavailable."""
        if self._asked or self._clock.monotonic() >= self._look_at:
            await self.look()

    def stir(self) -> None:
        """Look again at once: something was changed by this process."""
        self._look_at = float("-inf")
        self._stirred.set()

    async def until_stirred(self, seconds: float) -> None:
        """Return when something was changed, or after `seconds`."""
        self._stirred.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        except TimeoutError:
            return

    async def look(self) -> None:
        """Read every endpoint and the secrets they name. Raises StoreUnavailable."""
        asked = set(self._asked)
        endpoints = {endpoint.name: endpoint for endpoint in await self._webhooks.all()}
        self._look_at = self._clock.monotonic() + limits.WEBHOOK_LOOK_SECONDS
        self._asked -= asked
        self._gone = (self._gone | asked) - endpoints.keys()
        keys: dict[str, Sequence[bytes]] = {}
        faults: dict[str, str] = {}
        for name, endpoint in endpoints.items():
            try:
                keys[name] = [key_of(secret_of(reference)) for reference in endpoint.secrets]
            except InvalidEndpoint as error:
                faults[name] = str(error)
        self.endpoints, self.faults, self._keys = endpoints, faults, keys

    def is_gone(self, name: str) -> bool:
        """Whether there is none of that name, for certain; if that is not known, it soon is."""
        if name in self._gone or name in self.endpoints:
            return name not in self.endpoints
        self._asked.add(name)
        return False

    def update(self, name: str, state: EndpointState | None, *, failing: bool) -> None:
        """Remember what this process has just learned, until the next look."""
        known = self.endpoints.get(name)
        if known is not None and state is not None:
            since = (known.failing_since or self._clock.now()) if failing else None
            self.endpoints[name] = replace(known, state=state, failing_since=since)

    @property
    def names(self) -> set[str]:
        """Every name that is known or asked for."""
        return {*self.endpoints, *self._asked}

    def keys_of(self, name: str) -> Sequence[bytes]:
        """Return the keys an endpoint signs with, newest first."""
        return self._keys.get(name, ())


def secret_of(reference: str) -> str:
    """Return what a reference names: a secret itself, `env:NAME` or `file:PATH`. Raises InvalidEndpoint."""
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        if not (value := os.environ.get(name)):
            raise InvalidEndpoint("secret", reference, "the variable is not set in this process")
        return value.strip()
    if kind == "file" and name:
        try:
            return Path(name).read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise InvalidEndpoint("secret", reference, f"cannot be read here: {error}") from None
    return reference
