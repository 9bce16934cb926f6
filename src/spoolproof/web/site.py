"""The dashboard as one ASGI application: what every request goes through, in order, and what it gets.

    headers → who asks → where it comes from → may they → the page, or the action with its record

A page is read and rendered; an action is recorded, done, recorded as done, and answered with the way back to a page.
There is one place for each of these, so that no route can leave one out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from hashlib import sha1
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

import spoolproof
from spoolproof.caught import error_line, error_text
from spoolproof.clock import Clock
from spoolproof.errors import InvalidMessage, NotFound, NotStarted, SpoolproofError, Unavailable
from spoolproof.ports.audit import Audit, AuditRecord
from spoolproof.telemetry.events import emit
from spoolproof.web.access import COOKIE, Access, Refusal
from spoolproof.web.events import ActDone
from spoolproof.web.guard import HEADERS, TooLarge, body_of, csrf_fault
from spoolproof.web.page import Action, Ask, Done, Form, Page
from spoolproof.web.pages import ACTIONS, PAGES
from spoolproof.web.people import Principal, who_may
from spoolproof.web.pulse import STREAMS_MAX, Pulse
from spoolproof.web.remembered import Reading, Remembered
from spoolproof.web.render import Raw, environment, query
from spoolproof.web.source import Source

THEMES = ("system", "light", "dark")
_FLASH, _THEME = "spoolproof_done", "spoolproof_theme"
Endpoint = Callable[[Request, Principal], Awaitable[Response]]


class Dashboard:
    """`service.dashboard()`, or the whole of `spoolproof dashboard`."""

    def __init__(self, source: Callable[[], Source], access: Access, clock: Clock) -> None:
        """source: returns what is shown, or raises NotStarted."""
        self._source = source
        self._access = access
        self._clock = clock
        self.remembered = Remembered(clock)
        self.pulse = Pulse(source, clock)
        routes: list[Route | Mount] = [
            Route("/login", self._login),
            Route("/logout", self._guarded("view", self._logout), methods=["POST"]),
            Route("/theme", self._guarded("view", self._set_theme), methods=["POST"]),
            Route("/live", self._guarded("view", self._live)),
            Mount("/static", StaticFiles(packages=[("spoolproof.web", "static")])),
        ]
        routes += [Route(page.path, self._guarded(page.permission, self._shower(page))) for page in PAGES]
        routes += [
            Route(action.path, self._guarded(action.permission, self._doer(action)), methods=["POST"])
            for action in ACTIONS
        ]
        self._app = Starlette(routes=routes, exception_handlers={HTTPException: self._wrong_path})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the headers that every answer has."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [(name.lower(), value) for name, value in message.get("headers", ())]
                names = {name for name, _ in given}
                keep = b"no-store" if b"/static/" not in scope["path"].encode() else b"public, max-age=3600"
                given += [(b"cache-control", keep)] if b"cache-control" not in names else []
                given += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": given}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)

    # --- every request -----------------------------------------------------------------------------------------------

    def _guarded(self, permission: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that is reached only by who may."""

        async def answer(request: Request) -> Response:
            found = await self._access.enter(request)
            if isinstance(found, Refusal):
                return self._plain(request, found.status, "Not signed in", found.text, dict(found.headers))
            if fault := csrf_fault(request.method, request.headers):
                return self._plain(request, 403, "Refused", f"this form was sent from elsewhere: {fault}")
            if not found.may(permission):
                text = f"{found.name} is a {found.role}; this is for {who_may(permission)}"
                return self._plain(request, 403, "Not allowed", text)
            try:
                return await endpoint(request, found)
            except TooLarge:
                return self._plain(request, 413, "Too large", "a form may have 1 MiB")
            except NotStarted:
                return self._plain(request, 503, "Not started", "the service starts or has ended; try again soon")
            except NotFound as error:
                return self._plain(request, 404, "Not found", error_text(error))
            except (InvalidMessage, ValueError) as error:
                return self._plain(request, 400, "Not understood", error_text(error))

        return answer

    def _shower(self, page: Page) -> Endpoint:
        async def show(request: Request, principal: Principal) -> Response:
            source = self._source()
            form = Form.parsed(request.url.query)
            ask = Ask(source=source, principal=principal, params=dict(request.path_params), form=form)
            key = principal.name, f"{request.url.path}?{request.url.query}"
            reading = await self.remembered.read(key, lambda: page.read(ask))
            return self._rendered(request, principal, page, reading, source)

        return show

    def _doer(self, action: Action) -> Endpoint:
        async def do(request: Request, principal: Principal) -> Response:
            source = self._source()
            form = Form.parsed((await body_of(request)).decode())
            ask = Ask(source=source, principal=principal, params=dict(request.path_params), form=form)
            back = _local(form.one("back")) or "/"
            try:
                done = await self._recorded(action, ask)
            except SpoolproofError as error:
                return self._back(request, back, error_text(error), is_ok=False)
            except Exception as error:  # an effect of the application's; the decision is undone with it
                return self._back(request, back, error_line(error), is_ok=False)
            return self._back(request, done.to or back, done.text, is_ok=True)

        return do

    async def _recorded(self, action: Action, ask: Ask) -> Done:
        """Do something between the two halves of its record; without the first half it is not done."""
        action.check(ask)
        source, audit = ask.source, ask.source.store.port(Audit)
        now = source.clock.now()
        record = AuditRecord(
            id=source.ids.message_id(now),
            at=now,
            actor=ask.principal.name,
            role=ask.principal.role.value,
            action=action.name,
            target=action.target(ask)[:500],
            reason=ask.reason,
        )
        await audit.begin(record)
        try:
            done = await action.run(ask)
        except Exception as error:
            await self._complete(audit, record, error_line(error), False)
            raise
        await self._complete(audit, record, done.text, True)
        return done

    async def _complete(self, audit: Audit, record: AuditRecord, result: str, is_ok: bool) -> None:
        ended = msgspec.structs.replace(record, result=result[:500], is_ok=is_ok, ended_at=self._clock.now())
        emit(ActDone(action=record.action, target=record.target, actor=record.actor, result=ended.result))
        try:
            await audit.end(ended)
        except Unavailable:
            return  # the first half says who did what; its result is in the log

    # --- answers -----------------------------------------------------------------------------------------------------

    def _rendered(
        self, request: Request, principal: Principal, page: Page, reading: Reading, source: Source
    ) -> Response:
        is_partial = "x-partial" in request.headers
        values = self._values(request, principal, page) | {
            "layout": "partial.html" if is_partial else "layout.html",
            "reading": reading,
            "doc": reading.document,
            "is_away": bool(reading.error),
            "own": source.own,
            "is_alone": source.is_alone,
            "own_view": next(iter(source.own_view().values()), None),
        }
        name = page.template if reading.document is not None else "away.html"
        values["ui"] = environment().get_template("ui.html").make_module(values)
        html = environment().get_template(name).render(values)
        tag = f'"{sha1(html.encode(errors="replace"), usedforsecurity=False).hexdigest()}"'
        if is_partial and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        response = HTMLResponse(html, headers={"ETag": tag})
        if not is_partial and _FLASH in request.cookies:
            response.delete_cookie(_FLASH, path=self._root(request), httponly=True, samesite="strict")
        return response

    def _values(self, request: Request, principal: Principal | None, page: Page | None) -> dict[str, Any]:
        root = request.scope.get("root_path", "")
        theme = request.cookies.get(_THEME, "system")
        here = request.url.path.removeprefix(root) or "/"
        return {
            "url": lambda path, **fields: Raw(root + path + query(fields)),
            "here": Raw(here + (f"?{request.url.query}" if request.url.query else "")),
            "page": page,
            "pages": PAGES,
            "principal": principal,
            "can": lambda permission: principal is not None and principal.may(permission),
            "who_may": who_may,
            "theme": theme if theme in THEMES else "system",
            "themes": THEMES,
            "flash": _unpacked(request.cookies.get(_FLASH, "")),
            "now": self._clock.now(),
            "version": spoolproof.__version__,
            "history": list(self.pulse.history),
            "has_session": COOKIE in request.cookies,
        }

    def _plain(
        self, request: Request, status: int, title: str, text: str, headers: dict[str, str] | None = None
    ) -> Response:
        values = self._values(request, None, None) | {"title": title, "text": text, "status": status}
        html = environment().get_template("plain.html").render(values)
        return HTMLResponse(html, status_code=status, headers=headers)

    def _back(self, request: Request, path: str, text: str, *, is_ok: bool) -> Response:
        """Return the way to a page that says what came of an action."""
        response = RedirectResponse(request.scope.get("root_path", "") + path, status_code=303)
        packed = base64.urlsafe_b64encode(msgspec.json.encode([is_ok, text[:1000]])).decode()
        self._set_cookie(request, response, _FLASH, packed, 60)
        return response

    def _set_cookie(self, request: Request, response: Response, name: str, value: str, seconds: int | None) -> None:
        is_secure = request.url.scheme == "https"
        root = self._root(request)
        response.set_cookie(name, value, seconds, path=root, secure=is_secure, httponly=True, samesite="strict")

    def _root(self, request: Request) -> str:
        return request.scope.get("root_path", "") or "/"

    async def _wrong_path(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return self._plain(request, status, "Nothing here", "there is no such page")

    # --- signing in, themes, signals ---------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        session = self._access.sign_in(request.query_params.get("token", ""))
        if session is None:
            return self._plain(request, 401, "Not signed in", "this login URL was used, or is too old")
        response = RedirectResponse(self._root(request).rstrip("/") + "/", status_code=303)  # off the address bar
        self._set_cookie(request, response, COOKIE, session, None)
        return response

    async def _logout(self, request: Request, principal: Principal) -> Response:
        self._access.sign_out(request)
        response = RedirectResponse(self._root(request).rstrip("/") + "/", status_code=303)
        response.delete_cookie(COOKIE, path=self._root(request), httponly=True, samesite="strict")
        return response

    async def _set_theme(self, request: Request, principal: Principal) -> Response:
        form = Form.parsed((await body_of(request)).decode())
        root = request.scope.get("root_path", "")
        response = RedirectResponse(root + (_local(form.one("back")) or "/"), status_code=303)
        theme = form.one("theme")
        self._set_cookie(request, response, _THEME, theme if theme in THEMES else "system", 365 * 86_400)
        return response

    async def _live(self, request: Request, principal: Principal) -> Response:
        if self.pulse.streams >= STREAMS_MAX:
            return Response("too many pages are open", status_code=503, headers={"Retry-After": "30"})
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self.pulse.signals(), media_type="text/event-stream", headers=headers)


def _local(path: str) -> str:
    """Return a path of this dashboard; "" for anything that leads elsewhere."""
    parts = urlsplit(path)
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if is_ours and path.isprintable() else ""


def _unpacked(cookie: str) -> tuple[bool, str] | None:
    try:
        is_ok, text = msgspec.json.decode(base64.urlsafe_b64decode(cookie), type=tuple[bool, str])
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return None
    return is_ok, text
