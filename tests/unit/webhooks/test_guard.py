"""Where webhooks may go: every notation of an address, and every network the Internet cannot reach."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spoolproof.errors import BlockedAddress
from spoolproof.webhooks.guard import Rules, is_public, target_of, vet

OPEN = Rules()
INSIDE = Rules.of(("10.1.0.0/16", "127.0.0.0/8"), (8080,))
HOOK = target_of("https://hooks.example.com/x", OPEN)


def notations(address: IPv4Address) -> list[str]:
    """Return every way a C library reads an IPv4 address."""
    number = int(address)
    a, b, c, d = address.packed
    forms = [
        *(f"{a}.{b}.{c}.{d}", f"{number}", f"{number:#x}", f"0{number:o}", f"{a}.{number & 0xFFFFFF}"),
        *(f"{a}.{b}.{number & 0xFFFF}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        *(
            f"{a:#X}.{b}.0{c:o}.{d}",
            f"{a}.{b}.{c}.{d}.",
            f"[::ffff:{address}]",
            f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]",
        ),
        *(
            f"{number:#x}.",
            f"%{ord(str(a)[0]):x}{str(a)[1:]}.{b}.{c}.{d}",
            "".join(chr(0xFF10 + int(x)) for x in str(number)),
        ),
    ]
    return forms


@given(st.ip_addresses(v=4))
@example(IPv4Address("169.254.169.254"))
@example(IPv4Address("127.0.0.1"))
@example(IPv4Address("0.0.0.0"))
def test_no_address_is_a_host_in_any_notation(address: IPv4Address) -> None:
    """A list of forbidden spellings always lacks one; so none is read at all, public or not."""
    for form in notations(address):
        for rules in (OPEN, INSIDE):
            with pytest.raises(BlockedAddress):
                target_of(f"https://{form}/x", rules)


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_a_host(address: IPv6Address) -> None:
    """With brackets or without."""
    for form in (f"[{address}]", f"[{address.exploded}]", f"[{address}%25eth0]", str(address)):
        with pytest.raises(BlockedAddress):
            target_of(f"https://{form}/x", OPEN)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "ftp://hooks.example.com/x",
        "https:/hooks.example.com",
        "https:///x",
        "//hooks.example.com",
        "https://user@hooks.example.com/",
        "https://user:pass@hooks.example.com/",
        "https://hooks.example.com@evil.example/",
        "https://hooks.example.com:444/",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com:8o/",
        "https://hooks.example.com/#f",
        "https://hooks.example.com\\@evil.example/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\r\nX: 1",
        "https://h\u00f6oks.example.com/",
        "https://hooks..example.com/",
        "https://-hooks.example.com/",
        "https://hooks.example.com./",
        "https://hooks%2eexample.com/",
        f"https://hooks.example.com/{'x' * 2100}",
        "",
    ],
)
def test_an_odd_url_is_refused_and_not_guessed(url: str) -> None:
    """Two readers of one odd URL see two hosts: the guard the one, the client the other."""
    with pytest.raises(BlockedAddress):
        target_of(url, OPEN)


def test_a_plain_url_is_kept_as_it_is() -> None:
    """What was checked is what is asked."""
    target = target_of("https://Hooks.Example.com/a%2Fb?c=d&e", OPEN)

    assert ("https://hooks.example.com:443/a%2Fb?c=d&e", "hooks.example.com", 443) == (
        *(target.url, target.host, target.port),
    )
    assert 8080 == target_of("http://hooks.example.com:8080/", INSIDE).port


@pytest.mark.parametrize(
    "text",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.9", "192.0.2.1", "198.18.0.1", "192.88.99.1"),
        *("::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "::ffff:8.8.8.8", "::8.8.8.8"),
        *("64:ff9b::808:808", "64:ff9b:1::1", "2002:808:808::1", "2001::1", "2001:db8::1", "3fff::1", "100::1"),
        *("5f00::1", "4000::1"),
    ],
)
def test_what_the_internet_cannot_reach_is_refused(text: str) -> None:
    """Loopback, private, link-local with the metadata services, shared, multicast, and every tunnel to them."""
    assert not is_public(ip_address(text))
    with pytest.raises(BlockedAddress, match="SPOOLPROOF_WEBHOOK_ALLOW_PRIVATE"):
        vet(HOOK, ["93.184.216.34", text], OPEN)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_ipv6_is_never_public(address: IPv4Address) -> None:
    """Mapped, compatible, translated, 6to4, Teredo: each leads past a check of the outer address."""
    number = int(address)
    for base, shift in (("::ffff:0:0", 0), ("::", 0), ("64:ff9b::", 0), ("2002::", 80), ("2001::", 0)):
        assert not is_public(IPv6Address(int(IPv6Address(base)) | number << shift))


@given(st.ip_addresses(v=6))
def test_only_what_is_given_out_is_public(address: IPv6Address) -> None:
    """2000::/3; a network that is given out later is opened by a release, not by chance."""
    if is_public(address):
        assert address in IPv6Network("2000::/3")
        assert address.is_global


def test_private_networks_are_opened_by_name_only() -> None:
    """And http goes nowhere else."""
    http, https = target_of("http://a.internal:8080/", INSIDE), target_of("https://a.internal/", INSIDE)

    assert ("10.1.2.3",) == vet(http, ["10.1.2.3"], INSIDE)
    assert ("10.1.2.3", "93.184.216.34") == vet(https, ["10.1.2.3", "93.184.216.34"], INSIDE)
    for target, addresses in ((http, ["93.184.216.34"]), (https, ["10.2.0.1"]), (https, ["10.1.2.3", "10.2.0.1"])):
        with pytest.raises(BlockedAddress):
            vet(target, addresses, INSIDE)
