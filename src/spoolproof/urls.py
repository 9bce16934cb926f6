"""Store and broker URLs: which are right, which file they name, and how they are shown.

A wrong URL is found before anything is opened and answered with one that works: what a driver makes of it is an outage
that never ends, or a file nobody looks into. Passwords never leave this module, also when a URL does not parse: an
unescaped `/` or `@` moves parts of a password to where a host or a path should be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

STORE_SCHEMES = ("sqlite", "postgresql", "postgres", "memory")
BROKER_SCHEMES = ("embedded", "amqp", "amqps", "sqs", "memory")

_FORMS = {
    "sqlite": "sqlite:///store.db (relative), sqlite:////var/lib/shop/store.db (from the root)",
    "embedded": "embedded:///broker.db (relative), embedded:////var/lib/shop/broker.db (from the root)",
    "postgresql": "postgresql://USER:PASSWORD@HOST:5432/DATABASE",
    "amqp": "amqp://USER:PASSWORD@HOST:5672/VHOST",
    "sqs": "sqs://REGION, sqs://KEY_ID:SECRET@REGION?endpoint=http://127.0.0.1:5000",
    "memory": "memory://",
}
_SAME_FORM = {"postgres": "postgresql", "amqps": "amqp"}
_ESCAPES = "in a user or password write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and % as %25"

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


def url_fault(url: str, schemes: Sequence[str]) -> str | None:
    """Return what is wrong with a URL and what to write instead, without its password; None if nothing is."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in schemes:
        return _scheme_fault(url, schemes)
    form = _SAME_FORM.get(scheme, scheme)
    if any(not character.isprintable() for character in url) or url != url.strip():
        fault: str | None = "has a control character or white space around it"
    elif form in ("sqlite", "embedded"):
        fault = _file_fault(scheme, rest)
    elif form == "memory":
        fault = "takes nothing after the two slashes" if rest else None
    else:
        fault = _network_fault(form, rest)
    return fault and f"{redact_url(url)!r} {fault}; the form is {_FORMS[form]}"


def several_fault(urls: Sequence[str], schemes: Sequence[str]) -> str | None:
    """Return the first fault of a list of URLs for one broker, or None."""
    for url in urls:
        if fault := url_fault(url, schemes):
            return f"{fault} (a comma in a password is %2C)" if len(urls) > 1 else fault
    schemes_used = {url.partition("://")[0] for url in urls}
    kinds = {_SAME_FORM.get(scheme, scheme) for scheme in schemes_used}
    if len(kinds) > 1:
        return f"several URLs must be of one kind, not {', '.join(sorted(kinds))}"
    if len(urls) > 1 and kinds != {"amqp"}:
        return f"only amqp:// takes several URLs, not {', '.join(sorted(kinds))}://"
    return None


def redact_url(url: str) -> str:
    """Return a URL with `***` for its password and without its query; `***` if it does not parse."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme or (scheme not in ("sqlite", "embedded") and _breaks_off(rest)):
        return "***"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if ":" in host:
            host = f"[{host}]"
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "***"
    user = f"{parts.username}:***@" if parts.password is not None else (f"{parts.username}@" if parts.username else "")
    if not parts.netloc:  # `urlunsplit` would take slashes away
        return f"{scheme}://{parts.path}"
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, "", ""))


def path_of(url: str) -> Path:
    """Return the file of a `sqlite:///PATH` or `embedded:///PATH` URL; `///./x` is relative, `////x` absolute."""
    return Path(url.partition("://")[2].removeprefix("/"))


def _scheme_fault(url: str, schemes: Sequence[str]) -> str:
    scheme, _, rest = url.partition(":")
    plain = scheme.strip().lower().partition("+")[0]
    if plain in schemes and plain != scheme and rest:
        return f"write {plain}: where {scheme!r} stands"
    if plain in schemes:
        form = _FORMS[_SAME_FORM.get(plain, plain)]
        return f"{plain}: must be followed by slashes; the form is {form}"
    known = ", ".join(f"{one}://" for one in schemes)
    return f"{redact_url(url)!r} is not a URL of one of {known}"


def _file_fault(scheme: str, rest: str) -> str | None:
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


def _network_fault(form: str, rest: str) -> str | None:
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    if "#" in rest or _breaks_off(rest):
        return f"breaks off in its password: {_ESCAPES}"
    if re.search("%(?![0-9A-Fa-f]{2})", authority + path):
        return f"has a % that is no escape: {_ESCAPES}"
    if form == "postgresql" and authority.count("@") > 1:
        return f"has more than one @: {_ESCAPES}"
    if any(character.isspace() for character in rest):
        return "has white space in it"
    hosts = authority.rpartition("@")[2]
    for one in hosts.split(",") if form == "postgresql" else [hosts]:
        match = _HOST.fullmatch(one)
        if match is None or (match[2] and not 1 <= int(match[2]) <= 65535):
            return f"has a port that is no number from 1 to 65535, or a password that is not escaped: {_ESCAPES}"
        # PostgreSQL without a host is a socket of this machine, or what PGHOST says
        if not match[1] and (form in ("amqp", "sqs") or match[2] or not (path or query)):
            return "names no host"
    return _query_fault(query) if form == "postgresql" and query else None


def _breaks_off(rest: str) -> bool:
    """Tell whether an unescaped character has moved a part of the password behind the host."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
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
