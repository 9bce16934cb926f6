"""Who gets in. One of four, chosen where the dashboard is made:

- `Login`: this machine alone, by a URL that is printed at the start and good for one use;
- `Basic`: a user name and a password of the settings; the password says which role;
- `Asked`: the application says who it is, by whatever it has signed them in with;
- `Closed`: nobody, and the page says how to open it.

Sessions and failures are of this process: who restarts the dashboard signs in again.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import inspect
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request

from spoolproof.clock import Clock
from spoolproof.web.guard import LOOPBACK, host_fault, loopback_fault
from spoolproof.web.people import Principal, Role
from spoolproof.web.settings import DashboardSettings

COOKIE = "spoolproof_session"
TOKEN_SECONDS = 600.0
SESSION_SECONDS = 12 * 3600.0
IDLE_SECONDS = 3600.0
FAILURES_MAX = 5  #: of one address in a minute
_KEPT_MAX = 1000  #: sessions, and addresses that failed


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody is not let in. headers: of the answer."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


Caller = Callable[[Request], Principal | Awaitable[Principal | None] | None]


class Access(Protocol):
    """One way in."""

    async def enter(self, request: Request) -> Principal | Refusal:
        """Say who asks, or why nobody gets in."""

    def sign_in(self, token: str) -> str | None:
        """Return the session for a token of a login URL; None where it is good for nothing."""

    def sign_out(self, request: Request) -> None:
        """End the session of a request."""


class Stateless:
    """Base of the ways without sessions."""

    def sign_in(self, token: str) -> str | None:
        """Return None: there are no tokens."""
        return None

    def sign_out(self, request: Request) -> None:
        """Do nothing: there are no sessions."""


@dataclass(slots=True)
class _Session:
    since: float
    seen: float


class Login:
    """This machine alone, by a URL that is good once. name: who they are."""

    def __init__(self, name: str, *, hosts: tuple[str, ...] = (), role: Role = Role.ADMIN, clock: Clock) -> None:
        self._principal = Principal(name, role)
        self._hosts = frozenset((*LOOPBACK, "testserver", *(host.lower() for host in hosts)))
        self._clock = clock
        self._tokens: dict[str, float] = {}
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def token(self) -> str:
        """Return a new token for `/login?token=…`: 128 bits, good for ten minutes and one use."""
        token = os.urandom(16).hex()
        self._tokens[token] = self._clock.monotonic() + TOKEN_SECONDS
        return token

    async def enter(self, request: Request) -> Principal | Refusal:
        """Let in who has a session."""
        fault = loopback_fault(request) or host_fault(request.headers, self._hosts)
        if fault is not None:
            return Refusal(403, f"{fault}; set SPOOLPROOF_DASHBOARD_PASSWORD for access from elsewhere")
        now = self._clock.monotonic()
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        if session is None or now - session.seen > IDLE_SECONDS or now - session.since > SESSION_SECONDS:
            self.sign_out(request)
            return Refusal(401, "open the login URL that was printed at the start; restart the dashboard for a new one")
        session.seen = now
        return self._principal

    def sign_in(self, token: str) -> str | None:
        """Return a new session for a token, which is used up."""
        now = self._clock.monotonic()
        if self._tokens.pop(token, now) <= now:
            return None
        session = os.urandom(16).hex()
        self._sessions[session] = _Session(now, now)
        if len(self._sessions) > _KEPT_MAX:
            self._sessions.popitem(last=False)
        return session

    def sign_out(self, request: Request) -> None:
        """End the session of a request."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)


class Basic(Stateless):
    """A user name and a password; the password says which role."""

    def __init__(self, passwords: Mapping[Role, str], *, clock: Clock) -> None:
        self._passwords = dict(passwords)
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    async def enter(self, request: Request) -> Principal | Refusal:
        """Let in who has a password."""
        address = "" if request.client is None else request.client.host
        now = self._clock.monotonic()
        lately = [at for at in self._failures.get(address, ()) if now - at < 60.0]
        if len(lately) >= FAILURES_MAX:
            wait = str(max(1, int(60.0 - (now - lately[0]))))
            return Refusal(429, f"too many wrong passwords; try again in {wait} s", {"Retry-After": wait})
        given = request.headers.get("authorization")
        found = None if given is None else self._principal_of(given)
        if found is not None:
            self._failures.pop(address, None)
            return found
        if given is not None:
            self._failures[address] = [*lately, now]
            if len(self._failures) > _KEPT_MAX:
                self._failures.popitem(last=False)
        challenge = {"WWW-Authenticate": 'Basic realm="spoolproof", charset="UTF-8"'}
        return Refusal(401, "give a name, which the audit trail will show, and a password of the settings", challenge)

    def _principal_of(self, header: str) -> Principal | None:
        scheme, _, encoded = header.partition(" ")
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        # every password is compared: which one fits is not told by how long it takes
        roles = [role for role, one in self._passwords.items() if hmac.compare_digest(one.encode(), password.encode())]
        try:
            return Principal(name, roles[0]) if scheme.lower() == "basic" and roles else None
        except ValueError:
            return None


class Asked(Stateless):
    """The application's own word on who it is."""

    def __init__(self, ask: Caller) -> None:
        self._ask = ask

    async def enter(self, request: Request) -> Principal | Refusal:
        """Let in whom the application names."""
        found = self._ask(request)
        principal = await found if inspect.isawaitable(found) else found
        return Refusal(401, "sign in to the application first") if principal is None else principal


class Closed(Stateless):
    """Nobody."""

    async def enter(self, request: Request) -> Principal | Refusal:
        """Say how to open it."""
        return Refusal(
            403,
            "nobody may see this dashboard yet: set SPOOLPROOF_DASHBOARD_PASSWORD, or mount it as "
            "service.dashboard(auth=…) with a function that returns a Principal",
        )


def basic_of(settings: DashboardSettings, clock: Clock) -> Basic | None:
    """Return the way in by passwords, if the settings have one."""
    given = {
        Role.ADMIN: settings.password,
        Role.OPERATOR: settings.operator_password,
        Role.REVIEWER: settings.reviewer_password,
        Role.VIEWER: settings.viewer_password,
    }
    passwords = {role: one.get_secret_value() for role, one in given.items() if one.get_secret_value()}
    return Basic(passwords, clock=clock) if passwords else None
