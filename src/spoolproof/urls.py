"""Store and broker URLs: which are right, which file they name, and how they are shown.

A wrong URL is found before anything is opened and answered with one that works: what a driver makes of it is an outage
that never ends, or a file nobody looks into. Passwords never leave this module, also when a URL does not parse: an
unescaped `/` or `@` moves parts of a password to where a host or a path should be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

_ESCAPES = "in a user or password write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and % as %25"

MASK = "***"
"""What stands where a secret stood."""
_PASSWORDS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)([^\s:@/?#]*):[^\s\"]*@")

_HOST = re.compile(r"(\[[^\[\]]+\]|[^\[\]:]*)(?::([0-9]+))?")

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_DRIVER_QUERY = (
    *("host", "port", "dbname", "database", "user", "password", "passfile", "service", "target_session_attrs"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
)
"""What asyncpg reads in a URL. All else it sends to the server as a setting of the session."""
_NOT_OF_THIS_DRIVER = (
    *("connect_timeout", "channel_binding", "gssencmode", "keepalives", "keepalives_idle", "keepalives_interval"),
    *("keepalives_count", "load_balance_hosts", "requiressl", "ssl", "sslcompression", "tcp_user_timeout"),
    *("fallback_application_name", "hostaddr", "pool_size", "max_overflow", "pgbouncer", "schema"),
)
"""Known to libpq or to an ORM: the server would refuse the log-in for them."""


def _nothing_fault(_scheme: str, rest: str) -> str | None:
    return "takes nothing after the two slashes" if rest else None


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlForm:
    """What the URLs of one adapter look like. example: shown to who wrote a wrong one. fault: says what is wrong with
    what follows a scheme's slashes. is_file: it names a file, and holds no password. takes_several: one per node."""

    schemes: tuple[str, ...]
    example: str = "memory://"
    fault: Callable[[str, str], str | None] = _nothing_fault
    is_file: bool = False
    takes_several: bool = False


F = TypeVar("F", bound=UrlForm)


def form_of(url: str, forms: Iterable[F]) -> F | None:
    """Return which of the forms a URL has, right or wrong; None if none."""
    scheme, separator, _ = url.partition("://")
    return next((form for form in forms if separator and scheme in form.schemes), None)


def url_fault(url: str, forms: Sequence[UrlForm]) -> str | None:
    """Return what is wrong with a URL and what to write instead, without its password; None if nothing is."""
    form = form_of(url, forms)
    if form is None:
        return _scheme_fault(url, forms)
    if any(not character.isprintable() for character in url) or url != url.strip():
        fault: str | None = "has a control character or white space around it"
    else:
        scheme, _, rest = url.partition("://")
        fault = form.fault(scheme, rest)
    return fault and f"{url if form.is_file else redact_url(url)!r} {fault}; the form is {form.example}"


def several_fault(urls: Sequence[str], forms: Sequence[UrlForm]) -> str | None:
    """Return the first fault of a list of URLs for one broker, or None."""
    for url in urls:
        if fault := url_fault(url, forms):
            return f"{fault} (a comma in a password is %2C)" if len(urls) > 1 else fault
    kinds = {form.schemes[0]: form for url in urls if (form := form_of(url, forms))}
    if len(kinds) > 1:
        return f"several URLs must be of one kind, not {', '.join(sorted(kinds))}"
    if len(urls) > 1 and not all(form.takes_several for form in kinds.values()):
        able = " and ".join(f"{form.schemes[0]}://" for form in forms if form.takes_several)
        return f"only {able} takes several URLs, not {', '.join(sorted(kinds))}://"
    return None


def redact_url(url: str) -> str:
    """Return a URL with `***` for its password and without its query; `***` if it does not parse."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme or _breaks_off(rest):
        return MASK
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if ":" in host:
            host = f"[{host}]"
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return MASK
    user = (
        f"{parts.username}:{MASK}@" if parts.password is not None else (f"{parts.username}@" if parts.username else "")
    )
    if not parts.netloc:  # `urlunsplit` would take slashes away
        return f"{scheme}://{parts.path}"
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, "", ""))


def without_passwords(text: str) -> str:
    """Return a text with `***` for the passwords of the URLs in it; rather too much is hidden than a password with a
    slash in it shown."""
    return _PASSWORDS.sub(rf"\1\2:{MASK}@", text)


SEEDED = {"redis+sentinel": 26379, "redis+cluster": 6379}
"""Schemes of URLs that name several servers to ask where another one is, and the port each has unless it says so."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """The parts of such a URL. hosts: with ports. name, db: after the slash; of what the sentinels watch."""

    scheme: str
    user: str
    password: str
    hosts: tuple[tuple[str, int], ...]
    name: str
    db: str


def seeds_of(url: str) -> Seeds | None:
    """Return the parts of a URL that `seeds_fault` finds right; None for one of another scheme."""
    scheme, _, rest = url.partition("://")
    if scheme not in SEEDED:
        return None
    authority, path, _ = _split(rest)
    who, _, hosts = authority.rpartition("@")
    user, _, password = who.partition(":")
    found = [_HOST.fullmatch(one) for one in hosts.split(",")]
    pairs = tuple((one[1].strip("[]"), int(one[2] or SEEDED[scheme])) for one in found if one is not None)
    name, _, db = path.strip("/").partition("/")
    return Seeds(scheme, unquote(user), unquote(password), pairs, name, db)


def seeds_fault(scheme: str, rest: str) -> str | None:
    """Return what is wrong with the servers it names, and with what follows them, as `UrlForm.fault`."""
    authority, path, query = _split(rest)
    if fault := _network_fault(rest, authority.rpartition("@")[2].split(","), needs_host=True):
        return fault
    name, _, db = path.strip("/").partition("/")
    if query:
        return "has a query, which nothing reads"
    if scheme == "redis+cluster":
        return "has a database; a cluster has one alone" if path.strip("/") else None
    if not name:
        return "does not say which Redis; add its name as the sentinels have it, such as /mymaster"
    return None if not db or db.isdecimal() else f"has the database {db!r}, which is no number"


def path_of(url: str) -> Path:
    """Return the file of a `sqlite:///PATH` or `embedded:///PATH` URL; `///./x` is relative, `////x` absolute."""
    return Path(url.partition("://")[2].removeprefix("/"))


def _scheme_fault(url: str, forms: Sequence[UrlForm]) -> str:
    scheme, _, rest = url.partition(":")
    plain = scheme.strip().lower().partition("+")[0]
    form = form_of(f"{plain}://", forms)
    if form is not None and plain != scheme and rest:
        return f"write {plain}: where {scheme!r} stands"
    if form is not None:
        return f"{plain}: must be followed by slashes; the form is {form.example}"
    known = ", ".join(f"{one}://" for form in forms for one in form.schemes)
    return f"{redact_url(url)!r} is not a URL of one of {known}"


def file_fault(scheme: str, rest: str) -> str | None:
    """Return what is wrong with the file a URL names, as `UrlForm.fault`."""
    if rest and not rest.startswith("/"):
        return f"names its file after two slashes; write {scheme}:///{rest}"
    path = rest[1:]
    if path == ":memory:":
        return "is not for a database in memory; write memory://"
    if path.rpartition("/")[2] in ("", ".", ".."):
        return "names no file"
    if path.startswith("~"):
        return "begins with ~, which nothing expands; write the whole path"
    if "?" in path or "#" in path:
        return "has a ? or #; only the path of a file may follow"
    if re.search("%[0-9A-Fa-f]{2}", path):
        return "has a percent escape, which nothing undoes; write the character itself"
    return None


def postgres_fault(_scheme: str, rest: str) -> str | None:
    """Return what asyncpg and the server would stumble over, as `UrlForm.fault`."""
    authority, path, query = _split(rest)
    if authority.count("@") > 1 and not _breaks_off(rest):
        return f"has more than one @: {_ESCAPES}"
    # without a host it is a socket of this machine, or what PGHOST says
    needs_host = not (path or query)
    hosts = authority.rpartition("@")[2].split(",")
    return _network_fault(rest, hosts, needs_host=needs_host) or (_query_fault(query) if query else None)


def host_fault(_scheme: str, rest: str) -> str | None:
    """Return what keeps a URL from naming one host, perhaps with user, password and port, as `UrlForm.fault`."""
    return _network_fault(rest, [_split(rest)[0].rpartition("@")[2]], needs_host=True)


def _network_fault(rest: str, hosts: Sequence[str], *, needs_host: bool) -> str | None:
    authority, path, _ = _split(rest)
    if "#" in rest or _breaks_off(rest):
        return f"breaks off in its password: {_ESCAPES}"
    if re.search("%(?![0-9A-Fa-f]{2})", authority + path):
        return f"has a % that is no escape: {_ESCAPES}"
    if any(character.isspace() for character in rest):
        return "has white space in it"
    for one in hosts:
        match = _HOST.fullmatch(one)
        if match is None or (match[2] and not 1 <= int(match[2]) <= 65535):
            return f"has a port that is no number from 1 to 65535, or a password that is not escaped: {_ESCAPES}"
        if not match[1] and (needs_host or match[2]):
            return "names no host"
    return None


def _split(rest: str) -> tuple[str, str, str]:
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    return authority, path, query


def _breaks_off(rest: str) -> bool:
    """Tell whether an unescaped character has moved a part of the password behind the host."""
    authority, path, query = _split(rest)
    # a query may name a user when there is no authority
    return "@" not in authority and ("@" in path or (authority != "" and "@" in query))


def _query_fault(query: str) -> str | None:
    try:
        values = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        return "has a query that is not NAME=VALUE&NAME=VALUE"
    for name, value in values.items():
        if name == "sslmode" and value not in _SSL_MODES:
            return f"has sslmode={value!r}; it is one of {', '.join(_SSL_MODES)}"
        if name in _NOT_OF_THIS_DRIVER:
            return f"has {name}=, which neither asyncpg nor the server knows; leave it out"
        if name not in _DRIVER_QUERY and (near := get_close_matches(name, _DRIVER_QUERY, 1, cutoff=0.85)):
            return f"has {name}= in its query; {near[0]}= is meant"
    return None
