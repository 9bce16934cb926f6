"""Signing what is sent and checking what came, as Standard Webhooks says.

Signed is `id.timestamp.body`, with HMAC-SHA256 under each secret, and the bytes that are signed are the bytes on the
wire. Source: the Standard Webhooks specification, "Signature scheme". A secret is `whsec_` and the base64 of 24 to 64
random bytes.

Must never happen here: a comparison that ends sooner for a better guess.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from datetime import timedelta

from spoolproof.clock import AMBIENT, Clock
from spoolproof.errors import InvalidEndpoint, InvalidSignature

PREFIX = "whsec_"
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_KEY_BYTES_MIN, _KEY_BYTES_MAX = 24, 64
_SIGNATURES_MAX = 20  #: looked at in one header: whoever sends more wants to keep us busy


def new_secret() -> str:
    """Return a secret that nobody has: 32 random bytes."""
    return PREFIX + base64.b64encode(os.urandom(32)).decode()


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret. Raises InvalidEndpoint, which does not repeat it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX).strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not _KEY_BYTES_MIN <= len(key) <= _KEY_BYTES_MAX:
        raise InvalidEndpoint("secret", f"{PREFIX}…", "must be whsec_ and the base64 of 24 to 64 random bytes")
    return key


def sign(id: str, timestamp: int, body: bytes, keys: Iterable[bytes]) -> str:
    """Return the header `webhook-signature`: one signature for each key, separated by spaces."""
    signed = f"{id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: str | Iterable[str],
    tolerance: float | timedelta = 300,
    *,
    clock: Clock = AMBIENT,
) -> str:
    """Check a webhook that came, and return its id, which is the same each time it is sent: handle each id once.

    headers: their names in any case. body: the bytes as they came, before anything reads them. secrets: `whsec_…`, one
    or, while they are rotated, several. tolerance: how far its time may be from this clock's, in seconds.
    Raises InvalidSignature, InvalidEndpoint for a secret that is none.
    """
    seconds = tolerance.total_seconds() if isinstance(tolerance, timedelta) else tolerance
    found = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID, TIMESTAMP, SIGNATURE) if not found.get(name)]
    if missing:
        raise InvalidSignature(f"no header {', '.join(missing)}: this is not a webhook, or a proxy took it away")
    if not (found[TIMESTAMP].isascii() and found[TIMESTAMP].isdigit() and len(found[TIMESTAMP]) < 16):
        raise InvalidSignature(f"{TIMESTAMP}={found[TIMESTAMP][:40]!r}: must be whole seconds")
    timestamp = int(found[TIMESTAMP])
    if abs(clock.now().timestamp() - timestamp) > seconds:
        raise InvalidSignature(
            f"{TIMESTAMP}={timestamp} is over {seconds:g} s away: sent late or again, or a clock is off"
        )
    keys = [key_of(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    given = [one.encode() for one in found[SIGNATURE].split(" ")[:_SIGNATURES_MAX]]
    wanted = [sign(found[ID], timestamp, body, [key]).encode() for key in keys]
    if not any([hmac.compare_digest(one, other) for one in given for other in wanted]):
        raise InvalidSignature("none of its signatures is by one of these secrets: a wrong secret, or a changed body")
    return found[ID]
