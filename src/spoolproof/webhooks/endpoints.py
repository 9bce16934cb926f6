"""What people do with endpoints, from the command line and from `service.webhooks`, checked before it is written."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence

from spoolproof import limits
from spoolproof.errors import Conflict, InvalidEndpoint, InvalidMessage, NotFound
from spoolproof.message import check_short_text
from spoolproof.ports.webhooks import ALL_TYPES, Endpoint, EndpointState, Webhooks
from spoolproof.webhooks.guard import Rules
from spoolproof.webhooks.signature import PREFIX, key_of, new_secret
from spoolproof.webhooks.transport import LookUp, look_up, vetted

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TYPES_MAX = 100
_KEPT_SECRETS = 2  #: the new one and the one before it, until the receiver knows the new one


async def find(webhooks: Webhooks, name: str) -> Endpoint:
    """Return an endpoint. Raises NotFound with the names there are."""
    endpoints = await webhooks.all()
    for endpoint in endpoints:
        if endpoint.name == name:
            return endpoint
    names = ", ".join(endpoint.name for endpoint in endpoints) or "none yet"
    raise _missing(f"there is no endpoint {name!r}; there are: {names}")


async def add(
    webhooks: Webhooks,
    name: str,
    url: str,
    types: Sequence[str],
    secret: str | None,
    rules: Rules,
    look_up: LookUp = look_up,
) -> Endpoint:
    """Add an endpoint; its first secret, if it begins with `whsec_`, is shown this once. secret: None makes one.

    Raises InvalidEndpoint, BlockedAddress, Conflict for a name that is taken, StoreUnavailable.
    """
    if not _NAME.fullmatch(name):
        raise InvalidEndpoint("name", name, "1 to 63 lower-case letters, digits, `-`, `_` or `.`")
    if isinstance(types, str) or not 1 <= len(types) <= _TYPES_MAX:
        raise InvalidEndpoint("types", types, f"1 to {_TYPES_MAX} wire names of events, or {ALL_TYPES!r} for all")
    for type in types:
        try:
            check_short_text("types", type)
        except InvalidMessage as error:
            raise InvalidEndpoint("types", type, str(error)) from None
    secret = new_secret() if secret is None else _checked(secret)
    await check_url(url, rules, look_up)
    if len(await webhooks.all()) >= limits.WEBHOOK_ENDPOINTS_MAX:
        raise _conflict(f"there are {limits.WEBHOOK_ENDPOINTS_MAX} endpoints, the most there may be; remove one")
    endpoint = Endpoint(name=name, url=url, secrets=(secret,), types=tuple(dict.fromkeys(types)))
    if not await webhooks.add(endpoint):
        raise _conflict(f"there is an endpoint {name!r} already; remove it first, or take another name")
    return endpoint


async def check_url(url: str, rules: Rules, look_up: LookUp = look_up) -> None:
    """Raise BlockedAddress for a URL that no webhook may go to, InvalidEndpoint for a name that nobody knows."""
    try:
        await vetted(url, rules, look_up)
    except OSError as error:
        raise InvalidEndpoint("url", url, f"its name cannot be looked up: {error}") from None


async def pause(webhooks: Webhooks, name: str, reason: str) -> None:
    """Send it nothing; its events wait. Raises NotFound, StoreUnavailable."""
    await _done(webhooks, name, webhooks.change(name, EndpointState.PAUSED, reason))


async def resume(webhooks: Webhooks, name: str) -> None:
    """Send it what waits and what comes, whether it was paused or disabled. Raises NotFound, StoreUnavailable."""
    await _done(webhooks, name, webhooks.change(name, EndpointState.ACTIVE, ""))


async def rotate(webhooks: Webhooks, name: str, secret: str | None = None, *, ends: bool = False) -> str:
    """Sign with a new secret, and with the one before it until the next rotation; returns the new one or what names it.

    ends: sign with the newest alone from now on, and take no new one. Raises NotFound, InvalidEndpoint,
    StoreUnavailable.
    """
    before = (await find(webhooks, name)).secrets
    after = before[:1] if ends else (new_secret() if secret is None else _checked(secret), *before)[:_KEPT_SECRETS]
    await _done(webhooks, name, webhooks.sign_with(name, after))
    return after[0]


async def remove(webhooks: Webhooks, name: str) -> None:
    """Forget it; what waits for it becomes dead letters. Raises NotFound, StoreUnavailable."""
    await _done(webhooks, name, webhooks.remove(name))


def shown(secret: str) -> str:
    """Return what may be seen of a secret."""
    return f"{PREFIX}…" if secret.startswith(PREFIX) else secret


def _checked(secret: str) -> str:
    kind, _, name = secret.partition(":")
    if not (kind in ("env", "file") and name):
        key_of(secret)
    return secret


async def _done(webhooks: Webhooks, name: str, change: Awaitable[bool]) -> None:
    if not await change:
        await find(webhooks, name)


def _missing(text: str) -> NotFound:
    error = NotFound(text)
    error.hint = "spoolproof webhook ls"
    return error


def _conflict(text: str) -> Conflict:
    error = Conflict(text)
    error.hint = "spoolproof webhook ls"
    return error
