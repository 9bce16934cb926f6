"""`app.mount("/", service.health)` in a real FastAPI application takes nothing of that application away."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from spoolproof import Service


def application(*, mount: str = "last") -> FastAPI:
    app = FastAPI()
    if mount == "first":
        app.mount("/", Service("shop").health)

    @app.post("/invoices")
    def make_invoice() -> dict[str, str]:
        return {"invoice": "made"}

    @app.get("/folders/")
    def folders() -> dict[str, str]:
        return {"folders": "all"}

    orders = APIRouter(prefix="/orders")

    @orders.get("/{order_id}")
    def order(order_id: str) -> dict[str, str]:
        return {"order": order_id}

    app.include_router(orders)

    @app.exception_handler(404)
    async def missing(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"ours": "missing"}, status_code=404)

    if mount == "last":
        app.mount("/", Service("shop").health)
    return app


async def ask(app: Any, method: str, path: str, type: str = "http") -> tuple[int, dict[str, str], bytes]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""} if type == "http" else {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": type,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "server": ("shop", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"shop")],
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0].get("headers", [])}
    return sent[0].get("status", sent[0].get("code")), headers, sent[-1].get("body", b"")


@pytest.mark.parametrize("mount", ["last", "first"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invoices"),
        ("POST", "/invoices/"),
        ("GET", "/invoices"),
        ("GET", "/invoices/"),
        ("GET", "/folders"),
        ("DELETE", "/folders/"),
        ("GET", "/orders/7"),
        ("PUT", "/orders/7"),
        ("GET", "/nothing"),
        ("POST", "/nothing"),
        ("GET", "/"),
    ],
)
async def test_every_other_path_is_answered_as_without_the_mount(method: str, path: str, mount: str) -> None:
    """A redirect, a 405 and a 404 are answers of the application; a probe must not cost it them."""
    assert await ask(application(mount="no"), method, path) == await ask(application(mount=mount), method, path)


@pytest.mark.parametrize("mount", ["last", "first"])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/live", 200), ("GET", "/live/", 200), ("HEAD", "/ready", 503), ("POST", "/live", 405)],
)
async def test_the_paths_of_health_are_answered_by_it(method: str, path: str, status: int, mount: str) -> None:
    """What is mounted must answer, too."""
    assert status == (await ask(application(mount=mount), method, path))[0]


async def test_a_web_socket_nobody_serves_is_closed_by_the_application() -> None:
    """It would otherwise end in a traceback of ours."""
    assert await ask(application(mount="no"), "GET", "/ws", "websocket") == (
        await ask(application(), "GET", "/ws", "websocket")
    )


async def test_two_services_of_one_application_do_not_send_requests_in_circles() -> None:
    """Each leaves to the application what is not its own; neither may leave it to the other."""
    app = application()
    app.mount("/", Service("second").health)

    assert 404 == (await ask(app, "GET", "/nothing"))[0]
    assert 200 == (await ask(app, "GET", "/live"))[0]


async def test_an_application_inside_another_keeps_its_own_answers() -> None:
    """The innermost application is the host."""
    outer = Starlette(routes=[Mount("/api", application()), Route("/", lambda request: PlainTextResponse("outer"))])

    status, headers, _ = await ask(outer, "POST", "/api/invoices/")

    assert (307, "http://shop/api/invoices") == (status, headers["location"])
    assert 200 == (await ask(outer, "GET", "/api/live"))[0]


async def test_below_a_path_of_its_own_it_says_itself_what_it_does_not_know() -> None:
    """What is asked for below `/ops` was asked of nobody else."""
    app = FastAPI()
    app.mount("/ops", Service("shop").health)

    status, _, body = await ask(app, "GET", "/ops/nothing")

    assert (404, b'{"status":"not_found"}') == (status, body)
