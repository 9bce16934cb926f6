"""Where a webhook may go. Pure: whoever asks has looked the name up.

Endpoints are often set by customers, and a request from inside is a request past the firewall: to the metadata service
of a cloud, to a database's HTTP port, to this very process. So a URL names a host by a name, never by an address, on a
port that is known to be for this; and every address its name has must be one that the whole Internet can reach, unless
the settings say otherwise. One address in ten that is not is enough to be refused: whoever answers such a name wants us
to try.

Checked when an endpoint is added and before each request; the request goes to the addresses that were checked
(`transport.py`). Must never happen here: a guess what an odd URL may mean. What is not plain is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from spoolproof.errors import BlockedAddress

Network = IPv4Network | IPv6Network

_PORT = 443
_URL_LENGTH_MAX = 2048
_ODD = re.compile(r"[^!-~]|[\\\"<>^`{|}#]")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
# The last label of a name is never a number; every notation of an IPv4 address ends in one (WHATWG URL, "ends in a
# number"): 127.1, 0x7f.1, 2130706433, 0177.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Within 2000::/3, which is all that is given out: protocol assignments with Teredo, 6to4, documentation twice. Outside
# it lie loopback, link-local, unique local, multicast, IPv4-mapped and NAT64.
_GLOBAL_V6 = IPv6Network("2000::/3")
_NOT_GLOBAL: tuple[Network, ...] = (
    *(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")),
    # beside what Python knows: protocol assignments, the relays of 6to4
    *(IPv4Network(text) for text in ("192.0.0.0/24", "192.88.99.0/24")),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed beyond the Internet on port 443."""

    allow_private: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()

    @classmethod
    def of(cls, allow_private: Iterable[str], ports: Iterable[int]) -> Rules:
        """Return the rules of settings that were checked."""
        return cls(tuple(ip_network(text) for text in allow_private), tuple(ports))


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked, once the addresses of its host were checked."""

    url: str
    scheme: str
    host: str
    port: int


def target_of(url: str, rules: Rules) -> Target:
    """Return where a URL leads. Raises BlockedAddress with what to write instead."""
    if len(url) > _URL_LENGTH_MAX or _ODD.search(url):
        raise _refused(url, "printable ASCII without a fragment, at most 2048 characters; xn-- for other letters")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise _refused(url, "its port is not a number up to 65535") from None
    if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not rules.allow_private):
        raise _refused(
            url, "must begin with https://; http:// goes to networks of SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE only"
        )
    if "@" in parts.netloc:
        raise _refused("https://…@…", "must not carry a user or password; the signature says who sends")
    host = (parts.hostname or "").lower()
    if not _HOST.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise _refused(url, "its host must be a name, not an address in any notation")
    port = port or (_PORT if parts.scheme == "https" else 80)
    if port != _PORT and port not in rules.ports:
        raise _refused(url, f"port {port} is neither 443 nor in SPOOLPROOF_WEBHOOK_PORTS")
    query = f"?{parts.query}" if parts.query else ""
    return Target(f"{parts.scheme}://{host}:{port}{parts.path or '/'}{query}", parts.scheme, host, port)


def vet(target: Target, addresses: Iterable[str], rules: Rules) -> tuple[str, ...]:
    """Return the addresses of a target's host if every one of them may be connected to. Raises BlockedAddress."""
    found = tuple(addresses)
    for text in found:
        address = ip_address(text.partition("%")[0])
        is_private = any(address in network for network in rules.allow_private)
        if not is_private and (target.scheme == "http" or not is_public(address)):
            more = " over http" if is_public(address) else ""
            raise _refused(
                target.host, f"leads to {address}{more}, which SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE does not name"
            )
    return found


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is one machine that all of the Internet can reach by it."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return False
    if any(address in network for network in _NOT_GLOBAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _refused(value: str, reason: str) -> BlockedAddress:
    return BlockedAddress("url", value, reason)
